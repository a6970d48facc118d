import sys

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

PORT, REGION = int(sys.argv[1]), sys.argv[2]
METADATA = "/latest/meta-data/"

moto = DomainDispatcherApplication(create_backend_app)


def mac_of(address):
    with open("/proc/net/arp") as neighbours:
        for line in neighbours:
            fields = line.split()
            if fields[0] == address:
                return fields[3]


# What differs between instances: moto tells all of them the same, and nothing of their interfaces.
def metadata(path, address):
    mac = mac_of(address)
    if path == METADATA + "placement/region":
        return REGION
    if path == METADATA + "mac":
        return mac
    if path == METADATA + f"network/interfaces/macs/{mac}/interface-id":
        for interface in ec2_backends[DEFAULT_ACCOUNT_ID][REGION].enis.values():
            if interface.private_ip_address == address:
                return interface.id


def app(environ, start_response):
    path = environ["PATH_INFO"]
    known = metadata(path, environ["REMOTE_ADDR"])
    if known is not None:
        start_response("200 OK", [("Content-Length", str(len(known)))])
        return [known.encode()]

    # AWS's own clients insist on the header that says how long a token is good; moto forgets it.
    def start(status, headers, *more):
        if path == "/latest/api/token":
            headers.append(("x-aws-ec2-metadata-token-ttl-seconds", "21600"))
        return start_response(status, headers, *more)

    return moto(environ, start)


run_simple("0.0.0.0", PORT, app, threaded=True)
