"""Fetch data, analyse it and write a report: the API reference's own workflow, live.

Starts Harmonia, serves `penguins.csv` on loopback, runs `data_processing_workflow.json` on it and
stops everything again. Run it with `make demo`, or `python examples/demo.py [DIRECTORY]`: the
report is put into the directory (`harmonia-demo` by default).
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harmonia_serve.cli.run import follow_to_end
from harmonia_serve.client import ClientError, HarmoniaClient

EXAMPLES = Path(__file__).resolve().parent
HARMONIA = [sys.executable, "-m", "harmonia_serve.cli"]


def main(target: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="harmonia-demo-") as data_dir,
        running_harmonia(data_dir),
        file_server(EXAMPLES) as files_url,
        HarmoniaClient(data_dir=data_dir) as client,
    ):
        execution = client.run(
            EXAMPLES / "data_processing_workflow.json",
            {
                "data_url": f"{files_url}/penguins.csv",
                "output_file": "penguins.csv",
                "analysis_type": "comprehensive",
            },
        )
        final = follow_to_end(client, execution.id)
        if final["status"] != "completed":
            sys.exit(f"demo: the execution is {final['status']}: {final.get('error')}")
        report = Path(final["output"]["report_file"])
        saved = execution.download(report.name, (target / report.name).resolve())
    print(f"\nThe report: {saved}")


@contextmanager
def running_harmonia(data_dir: str) -> Iterator[None]:
    """`harmonia up` before, `harmonia down` after, whatever happens in between."""
    # Whatever is set for another installation has no part in this one.
    own = {name: value for name, value in os.environ.items() if not name.startswith("HARMONIA_")}
    try:
        subprocess.run([*HARMONIA, "up", "--detach", "--data-dir", data_dir], check=True, env=own)
        yield
    finally:
        subprocess.run([*HARMONIA, "down", "--data-dir", data_dir], check=True, env=own)


class QuietRequests(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: the demo's own progress is what is to be seen."""


@contextmanager
def file_server(directory: Path) -> Iterator[str]:
    """Serve a directory on a free port of loopback; gives its URL."""
    handler = functools.partial(QuietRequests, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


if __name__ == "__main__":
    # A demo that is ended from outside still stops what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("demo: stopped"))
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "harmonia-demo"))
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: `{' '.join(error.cmd[-4:])}` failed; what it said is above")
    except ClientError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; everything has been stopped")
