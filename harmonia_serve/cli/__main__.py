"""`python -m harmonia_serve.cli`: the `harmonia` command, also where no script is installed."""

from harmonia_serve.cli.main import app

if __name__ == "__main__":
    app(prog_name="harmonia")
