//! Whether what was found again and again counts: no clock, no system.

/// The state of something that is looked at, and what it takes to change it.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    rise: u32,
    fall: u32,
    /// None until the first verdict.
    is_well: Option<bool>,
    /// An agent before this one found it well a moment ago.
    was_well: bool,
    /// Looks in a row that found it otherwise.
    otherwise: u32,
}

impl Level {
    /// `rise` looks in a row make it well again, `fall` not well.
    pub const fn new(rise: u32, fall: u32, was_well: bool) -> Self {
        Self {
            rise,
            fall,
            is_well: None,
            was_well,
            otherwise: 0,
        }
    }

    /// Takes in what a look has found; whether that is its state from now on, and was not before. The first
    /// look decides at once, unless it was well before: then there is something to hold on to.
    pub fn changes(&mut self, found_well: bool) -> bool {
        if self.is_well == Some(found_well) {
            self.otherwise = 0;
            return false;
        }
        self.otherwise = self.otherwise.saturating_add(1);
        let needed = if found_well { self.rise } else { self.fall };
        let is_first = self.is_well.is_none() && (found_well || !self.was_well);
        let changes = is_first || self.otherwise >= needed;
        if changes {
            self.is_well = Some(found_well);
            self.otherwise = 0;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each look said of a change: `+` to well, `-` to not well, `.` none.
    fn changes(rise: u32, fall: u32, looks: &str) -> String {
        followed(Level::new(rise, fall, false), looks)
    }

    fn followed(mut level: Level, looks: &str) -> String {
        looks
            .chars()
            .map(|look| match (level.changes(look == 'w'), look) {
                (false, _) => '.',
                (true, 'w') => '+',
                (true, _) => '-',
            })
            .collect()
    }

    #[test]
    fn one_look_is_enough_if_nothing_else_is_said() {
        assert_eq!(changes(1, 1, "wnwnn"), "+-+-.");
    }

    #[test]
    fn the_first_look_decides() {
        assert_eq!(changes(9, 9, "wn"), "+.");
        assert_eq!(changes(9, 9, "nw"), "-.");
    }

    #[test]
    fn what_was_well_takes_as_many_looks_as_ever() {
        let level = Level::new(1, 3, true);
        assert_eq!(followed(level, "nnn"), "..-");
        assert_eq!(followed(level, "nwnnn"), ".+..-");
    }

    #[test]
    fn what_changes_it_must_come_in_a_row() {
        assert_eq!(changes(2, 3, "wnnwnnn"), "+.....-");
        assert_eq!(changes(2, 3, "nwnww"), "-...+");
        assert_eq!(changes(2, 1, "wnwnww"), "+-...+");
    }
}
