"""The page of report.py, live: curves, probabilities and the current architecture of runs in progress.

  python watch.py final_exp/mmimdb
  python watch.py sweeps/films --port 8123

Serves the page on this machine only (127.0.0.1) until it is interrupted. The page reloads itself only when a run has
logged an epoch. From another machine: ssh -L 8123:127.0.0.1:8123 HOST.
"""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from engine.arguments import RecipeParser, number
from reports.comparing import compare
from reports.contents import sections_of
from reports.live import nothing_yet, reload_script, under_way, version_of
from reports.page import page
from reports.reading import find_run_folders, read_runs
from util.cli import UserError, run_cli


def get_args_parser():
    """Flags of the server."""
    parser = RecipeParser(__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="run folders, or folders that contain some")
    parser.add_argument("--port", type=number(int, 0, 65535), default=8123, help="port; 0: any that is free")
    return parser


class Pages:
    """The page of some folders, rebuilt when they have changed."""

    def __init__(self, folders):
        self.folders, self.version, self.text = folders, None, ""
        self._lock = Lock()

    def current(self):
        """HTML of the page."""
        with self._lock:
            version = version_of(self.folders)
            if version != self.version:
                self.text = self._made(version)
                self.version = version
            return self.text

    def _made(self, version):
        if not find_run_folders(self.folders):
            return nothing_yet(self.folders, version)
        records = read_runs(self.folders)
        return page(sections_of(compare(records)), head=under_way(records), live=reload_script(version))


def handler_of(pages):
    """A class that answers requests for ``/`` and ``/version``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in ("/", "/version"):
                return self.send_error(404)
            text = pages.current() if self.path == "/" else version_of(pages.folders)
            body = text.encode("utf-8", errors="replace")
            self.send_response(200)
            self.send_header("Content-Type", f"text/{'html' if self.path == '/' else 'plain'}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            return self.wfile.write(body)

        def log_message(self, *args):
            """Do not print a line for every request."""

    return Handler


def make_server(folders, port):
    """Make a server that only this machine can reach; `serve_forever` runs it.

    Raises:
        UserError: A folder is missing, or the port is in use.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"{folder} is not a folder; name run folders, or folders that hold some")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler_of(Pages(folders)))
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; choose another, or 0 for any that is free") from None


def main(argv=None):
    """Serve the page until interrupted."""
    args = get_args_parser().parse_args(argv)
    with make_server(args.folders, args.port) as server:
        print(f"http://127.0.0.1:{server.server_port}/ (end with Ctrl-C)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    run_cli(main)
