//! A bar for each median, a line from the tenth to the ninetieth percentile.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::{Report, Row};

const WIDTH: u32 = 960;
const ROW_HEIGHT: u32 = 26;
const MARGIN: u32 = 110;
const LABELS: u32 = 330;

/// Each curve: what part of all values is no more than that. Both axes are logarithmic, the first by
/// the part that is more.
pub fn percentiles(caption: &str, curves: &[(String, [(f64, f64); 4])], path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH, WIDTH * 9 / 16)).into_drawing_area();
    draw_percentiles(&area, caption, curves).map_err(|error| anyhow!("cannot plot: {error}"))
}

fn draw_percentiles<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    caption: &str,
    curves: &[(String, [(f64, f64); 4])],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    area.fill(&WHITE)?;
    let highest = curves
        .iter()
        .flat_map(|(_, points)| points.map(|(_, value)| value))
        .fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..1_000.0).log_scale(), (1.0..highest * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("one of so many is longer")
        .y_desc("µs")
        .draw()?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let points = points.map(|(part, value)| (1.0 / (1.0 - part), value.max(1.0)));
        chart
            .draw_series([PathElement::new(points, colour.stroke_width(2))])?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()
}

pub fn bars(report: &Report, path: &Path) -> Result<()> {
    let rows: Vec<&Row> = report
        .sections
        .iter()
        .flat_map(|section| &section.rows)
        .collect();
    let count = u32::try_from(rows.len())?;
    let longest = rows.iter().map(|row| row.ns.p90).fold(1.0, f64::max);
    let size = (WIDTH, MARGIN + ROW_HEIGHT * count);
    let area = SVGBackend::new(path, size).into_drawing_area();
    draw(&area, report, &rows, longest).map_err(|error| anyhow!("cannot plot: {error}"))
}

fn draw<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    report: &Report,
    rows: &[&Row],
    longest: f64,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    area.fill(&WHITE)?;
    let count = i32::try_from(rows.len()).unwrap_or(i32::MAX);
    let caption = format!("{}, ns (median, p10 to p90)", report.benchmark);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..longest * 1.1, (0..count).into_segmented())?;
    // The first row stands at the top.
    let name = |value: &SegmentValue<i32>| match value {
        SegmentValue::CenterOf(at) => usize::try_from(count - 1 - at)
            .ok()
            .and_then(|row| rows.get(row))
            .map_or(String::new(), |row| row.name.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("ns")
        .y_labels(rows.len())
        .y_label_formatter(&name)
        .draw()?;
    for (row, at) in rows.iter().zip((0..count).rev()) {
        let (from, to) = (SegmentValue::Exact(at), SegmentValue::Exact(at + 1));
        let mut bar = Rectangle::new([(0.0, from), (row.ns.median, to)], BLUE.mix(0.5).filled());
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        let middle = SegmentValue::CenterOf(at);
        let ends = [(row.ns.p10, middle.clone()), (row.ns.p90, middle)];
        chart.draw_series([PathElement::new(ends, BLACK.stroke_width(2))])?;
    }
    area.present()
}
