//! The few calls of the EC2 Query API that moving a resource takes, and what of their answers is
//! needed.

use std::net::Ipv4Addr;

use quick_xml::de::from_str;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{
    error::CloudError,
    session::{Failed, Session},
};
use crate::config::RouteDestination;

/// A list as EC2 writes it.
#[derive(Debug, Deserialize)]
struct Set<T> {
    #[serde(default = "Vec::new")]
    item: Vec<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

/// What there is not may be an empty element or none.
fn none_if_empty<'de, D: Deserializer<'de>>(element: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(element)?;
    Ok(text.filter(|text| !text.is_empty()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteTables {
    #[serde(default)]
    route_table_set: Set<RouteTable>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteTable {
    #[serde(default)]
    route_set: Set<Route>,
}

/// An entry of a route table.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    destination_cidr_block: Option<String>,
    destination_ipv6_cidr_block: Option<String>,
    destination_prefix_list_id: Option<String>,
    #[serde(deserialize_with = "none_if_empty")]
    pub network_interface_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Addresses {
    #[serde(default)]
    addresses_set: Set<ElasticIp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ElasticIp {
    #[serde(deserialize_with = "none_if_empty")]
    pub network_interface_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInterfaces {
    #[serde(default)]
    network_interface_set: Set<NetworkInterface>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    pub private_ip_address: Ipv4Addr,
    pub source_dest_check: bool,
    #[serde(default)]
    private_ip_addresses_set: Set<PrivateIp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrivateIp {
    private_ip_address: Ipv4Addr,
}

impl NetworkInterface {
    pub fn has(&self, address: Ipv4Addr) -> bool {
        let Set { item } = &self.private_ip_addresses_set;
        item.iter().any(|ip| ip.private_ip_address == address)
    }
}

/// Whether a change is made, or only asked whether it would be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Real,
    Dry,
}

const DRY: (&str, &str) = ("DryRun", "true");

/// A description, and what it is of.
pub type Description<'a> = (&'static str, (&'static str, &'a str));

pub const fn described_table(table: &str) -> Description<'_> {
    ("DescribeRouteTables", ("RouteTableId.1", table))
}

pub const fn described_elastic_ip(allocation: &str) -> Description<'_> {
    ("DescribeAddresses", ("AllocationId.1", allocation))
}

/// The entry of a route table for `destination`; none if there is none.
pub async fn route(
    session: &Session,
    table: &str,
    destination: &RouteDestination,
) -> Result<Option<Route>, CloudError> {
    let (action, asked) = described_table(table);
    let tables: RouteTables = describe(session, action, &[asked]).await?;
    let Some(table) = tables.route_table_set.item.into_iter().next() else {
        return Err(not_found(session, "route table", table));
    };
    let wanted = Some(destination.to_string());
    Ok(table.route_set.item.into_iter().find(|route| {
        let Route {
            destination_cidr_block: v4,
            destination_ipv6_cidr_block: v6,
            destination_prefix_list_id: list,
            network_interface_id: _,
        } = route;
        [v4, v6, list].into_iter().any(|is| *is == wanted)
    }))
}

/// How an entry of a route table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Replace,
    Create,
}

pub async fn write_route(
    session: &Session,
    write: Write,
    table: &str,
    destination: &RouteDestination,
    interface: &str,
    run: Run,
) -> Result<(), CloudError> {
    let name = match destination {
        RouteDestination::Network(net) if net.addr().is_ipv4() => "DestinationCidrBlock",
        RouteDestination::Network(_) => "DestinationIpv6CidrBlock",
        RouteDestination::PrefixList(_) => "DestinationPrefixListId",
    };
    let action = match write {
        Write::Replace => "ReplaceRoute",
        Write::Create => "CreateRoute",
    };
    let destination = destination.to_string();
    let parameters = [
        ("RouteTableId", table),
        (name, &*destination),
        ("NetworkInterfaceId", interface),
    ];
    change(session, action, &parameters, run).await
}

/// Whether the API says that there is no entry to replace (EC2 answers with a code for anything wrong
/// about a parameter).
pub fn is_missing_route(error: &CloudError) -> bool {
    match error {
        CloudError::Refused { code, message, .. } => {
            code == "InvalidRoute.NotFound"
                || code == "InvalidParameterValue" && message.contains("no route defined")
        }
        _ => false,
    }
}

pub async fn elastic_ip(session: &Session, allocation: &str) -> Result<ElasticIp, CloudError> {
    let (action, asked) = described_elastic_ip(allocation);
    let addresses: Addresses = describe(session, action, &[asked]).await?;
    let found = addresses.addresses_set.item.into_iter().next();
    found.ok_or_else(|| not_found(session, "elastic IP", allocation))
}

pub async fn associate_address(
    session: &Session,
    allocation: &str,
    interface: &str,
    run: Run,
) -> Result<(), CloudError> {
    let parameters = [
        ("AllocationId", allocation),
        ("NetworkInterfaceId", interface),
        ("AllowReassociation", "true"),
    ];
    change(session, "AssociateAddress", &parameters, run).await
}

pub async fn network_interface(
    session: &Session,
    interface: &str,
) -> Result<NetworkInterface, CloudError> {
    let asked = [("NetworkInterfaceId.1", interface)];
    let found: NetworkInterfaces = describe(session, "DescribeNetworkInterfaces", &asked).await?;
    let found = found.network_interface_set.item.into_iter().next();
    found.ok_or_else(|| not_found(session, "network interface", interface))
}

pub async fn assign_private_ip(
    session: &Session,
    address: Ipv4Addr,
    interface: &str,
    run: Run,
) -> Result<(), CloudError> {
    let address = address.to_string();
    let parameters = [
        ("NetworkInterfaceId", interface),
        ("PrivateIpAddress.1", &*address),
        ("AllowReassignment", "true"),
    ];
    change(session, "AssignPrivateIpAddresses", &parameters, run).await
}

/// Lets the interface forward what is not addressed to it.
pub async fn disable_source_dest_check(
    session: &Session,
    interface: &str,
) -> Result<(), CloudError> {
    let parameters = [
        ("NetworkInterfaceId", interface),
        ("SourceDestCheck.Value", "false"),
    ];
    change(
        session,
        "ModifyNetworkInterfaceAttribute",
        &parameters,
        Run::Real,
    )
    .await
}

fn not_found(session: &Session, kind: &str, id: &str) -> CloudError {
    CloudError::NotFound {
        what: format!("{kind} {id} does not exist"),
        region: session.region.clone(),
    }
}

async fn describe<T: DeserializeOwned>(
    session: &Session,
    action: &'static str,
    parameters: &[(&str, &str)],
) -> Result<T, CloudError> {
    let answer = session.ask(action, parameters).await;
    let body = answer.map_err(|failed| error_of(session, action, failed))?;
    from_str(&body).map_err(|error| CloudError::NotUnderstood {
        action,
        reason: error.to_string(),
    })
}

/// Whether the API makes a difference between a dry run and a real one: asked by a description, which
/// changes nothing in either.
pub async fn knows_dry_runs(
    session: &Session,
    (action, asked): Description<'_>,
) -> Result<bool, CloudError> {
    match session.ask(action, &[asked, DRY]).await {
        Ok(_) => Ok(false),
        Err(Failed::Rejected(rejection)) if rejection.is_dry_run() => Ok(true),
        Err(failed) => Err(error_of(session, action, failed)),
    }
}

async fn change(
    session: &Session,
    action: &'static str,
    parameters: &[(&str, &str)],
    run: Run,
) -> Result<(), CloudError> {
    let mut parameters = parameters.to_vec();
    if run == Run::Dry {
        parameters.push(DRY);
    }
    match session.ask(action, &parameters).await {
        Ok(_) => Ok(()),
        Err(Failed::Rejected(rejection)) if run == Run::Dry && rejection.is_dry_run() => Ok(()),
        Err(failed) => Err(error_of(session, action, failed)),
    }
}

fn error_of(session: &Session, action: &'static str, failed: Failed) -> CloudError {
    match failed {
        Failed::Rejected(rejection) => rejection.classify(action, &session.region),
        Failed::Error(error) => error,
    }
}

/// Code and message of an error document.
pub fn rejection(body: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Response {
        #[serde(rename = "Errors")]
        errors: Errors,
    }
    #[derive(Deserialize)]
    struct Errors {
        #[serde(rename = "Error")]
        error: Vec<Problem>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Problem {
        code: String,
        #[serde(default)]
        message: String,
    }
    let Response { errors } = from_str(body).ok()?;
    let Problem { code, message } = errors.error.into_iter().next()?;
    Some((code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_is_read() {
        let body = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>UnauthorizedOperation</Code>\
                    <Message>You are not authorized</Message></Error></Errors>\
                    <RequestID>1</RequestID></Response>";
        let (code, message) = rejection(body).unwrap();
        assert_eq!(
            (&*code, &*message),
            ("UnauthorizedOperation", "You are not authorized")
        );
        assert!(rejection("<html>502 Bad Gateway</html>").is_none());
        assert!(rejection("").is_none());
    }

    #[test]
    fn what_is_needed_of_a_route_table_is_read() {
        let body = "<DescribeRouteTablesResponse><requestId>1</requestId><routeTableSet><item>\
            <routeTableId>rtb-1</routeTableId><routeSet>\
            <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId></item>\
            <item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>\
            <networkInterfaceId>eni-1</networkInterfaceId><state>active</state></item>\
            </routeSet><associationSet/></item></routeTableSet></DescribeRouteTablesResponse>";
        let tables: RouteTables = from_str(body).unwrap();
        let routes = &tables.route_table_set.item[0].route_set.item;
        assert_eq!(routes[0].network_interface_id, None);
        assert_eq!(routes[1].network_interface_id.as_deref(), Some("eni-1"));
        let body = "<R><addressesSet><item><networkInterfaceId></networkInterfaceId></item>\
            <item/></addressesSet></R>";
        let addresses: Addresses = from_str(body).unwrap();
        let free = |address: &ElasticIp| address.network_interface_id.is_none();
        assert!(addresses.addresses_set.item.iter().all(free));
        let none: RouteTables = from_str("<R><routeTableSet/></R>").unwrap();
        assert!(none.route_table_set.item.is_empty());
    }
}
