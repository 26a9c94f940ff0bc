"""Commands one after the other in one process, as JSON lists of words on stdin: python -m tests.faults.chain"""

import json
import sys

from typer.testing import CliRunner

from slidr.cli import app

if __name__ == "__main__":
    for words in json.load(sys.stdin):
        done = CliRunner().invoke(app, words)
        print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
