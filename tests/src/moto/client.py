import json
import sys

import boto3

region, word, *words = sys.argv[1:]
ec2 = boto3.client(
    "ec2",
    region_name=region,
    endpoint_url="http://127.0.0.1",
    aws_access_key_id="a",
    aws_secret_access_key="b",
)


def make(one, other):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    interfaces = []
    for address in (one, other):
        network = address.rsplit(".", 1)[0] + ".0/24"
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=network)["Subnet"]["SubnetId"]
        made = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=address)
        interfaces.append(made["NetworkInterface"]["NetworkInterfaceId"])
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    lists = ec2.create_managed_prefix_list(
        PrefixListName="far", MaxEntries=1, AddressFamily="IPv4"
    )["PrefixList"]["PrefixListId"]
    # One that is none of the routers' business.
    ec2.create_route(
        RouteTableId=table,
        DestinationCidrBlock="10.99.0.0/16",
        NetworkInterfaceId=interfaces[1],
    )
    return {
        "route_table": table,
        "elastic_ip": ec2.allocate_address(Domain="vpc")["AllocationId"],
        "interfaces": interfaces,
        "prefix_list": lists,
    }


def targets(table, allocation, moving):
    routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]

    def leads_to(kind, wanted):
        for route in routes:
            if route.get(kind, "").startswith(wanted):
                return route.get("NetworkInterfaceId")
        return None

    elastic = ec2.describe_addresses(AllocationIds=[allocation])["Addresses"][0]
    owners = [
        interface["NetworkInterfaceId"]
        for interface in ec2.describe_network_interfaces()["NetworkInterfaces"]
        for address in interface["PrivateIpAddresses"]
        if address["PrivateIpAddress"] == moving
    ]
    return {
        "ipv4": leads_to("DestinationCidrBlock", "0.0.0.0/0"),
        "ipv6": leads_to("DestinationIpv6CidrBlock", "::/0"),
        "prefix_list": leads_to("DestinationPrefixListId", "pl-"),
        "elastic_ip": elastic.get("NetworkInterfaceId"),
        "private_ip": owners[-1] if owners else None,
        "others": [
            route.get("NetworkInterfaceId", "local")
            for route in routes
            if route.get("DestinationCidrBlock", "0.0.0.0/0") != "0.0.0.0/0"
        ],
    }


def interfere(table, interface):
    ec2.replace_route(
        RouteTableId=table,
        DestinationCidrBlock="0.0.0.0/0",
        NetworkInterfaceId=interface,
    )


def ready():
    ec2.describe_regions()


commands = {"make": make, "targets": targets, "interfere": interfere, "ready": ready}
print(json.dumps(commands[word](*words)))
