"""How the start, the watch and the end of an installation look on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.output import duration_text, plain

__all__ = ["Presenter"]


class Presenter:
    """Shows reports: a line for what is done, a spinner with what is being done."""

    def __init__(self, data_dir: Path) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._data_dir = data_dir
        self._spinner: Status | None = None
        self._first_key = ""
        self._was_ready = False

    def __call__(self, report: reports.Report) -> None:
        """Show one report."""
        match report:
            case reports.Step(text):
                self._spin(text)
            case reports.Done(text, ms):
                self.rest()
                took = Text(f"  {duration_text(ms)}", style="dim")
                self._print(Text.assemble(("  ✓ ", "green"), plain(text), took))
            case reports.Note(text, warning):
                self.rest()
                mark = ("  ! ", "yellow") if warning else ("  · ", "cyan")
                self._print(Text.assemble(mark, plain(text)))
            case reports.FirstKey(api_key):
                self._first_key = api_key
            case reports.Ready(url, has_key):
                self.rest()
                self._ready(url, has_key)
            case _:
                pass

    def rest(self) -> None:
        """Take the spinner away."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def _spin(self, text: str) -> None:
        if self._spinner is None:
            self._spinner = self._console.status("")
            self._spinner.start()
        self._spinner.update(Text(plain(text)))

    def _ready(self, url: str, has_key: bool) -> None:
        again = " again" if self._was_ready else ""
        self._was_ready = True
        self._print(Text.assemble(("Ready", "bold green"), f"{again}: ", (url, "bold")))
        if again:
            return
        self._print(f"  REST {url}/api/harmonia   health {url}/health")
        if self._first_key:
            self._print(Text.assemble("  API key: ", (self._first_key, "bold")))
            self._print(
                Text(
                    "  It is shown this once and kept in "
                    f"{self._data_dir / 'connection.json'}, which only you can read.",
                    style="dim",
                )
            )
        elif has_key:
            place = self._data_dir / "connection.json"
            self._print(Text(f"  The API key is in {place}.", style="dim"))
        else:
            self._print(
                Text(
                    "  This store has keys already, but none of them is known here: set "
                    "HARMONIA_API_KEY to use the command line.",
                    style="yellow",
                )
            )

    def _print(self, text: Text | str) -> None:
        self._console.print(text if isinstance(text, Text) else Text(text))
