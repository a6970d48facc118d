import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)


def app(environ, start_response):
    # AWS's own clients insist on the header that says how long a token is good; moto forgets it.
    def start(status, headers, *more):
        if environ["PATH_INFO"] == "/latest/api/token":
            headers.append(("x-aws-ec2-metadata-token-ttl-seconds", "21600"))
        return start_response(status, headers, *more)

    return moto(environ, start)


run_simple("0.0.0.0", int(sys.argv[1]), app, threaded=True)
