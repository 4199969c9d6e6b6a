"""Commands of calr, a JSON list of lists of words, one after another in the same process.

Ends with the first that fails. So a test pays once for what every process of torchrun takes to start.
"""

from __future__ import annotations

import json
import sys

from calr_cli.cli.app import main

if __name__ == "__main__":
    for words in json.loads(sys.argv[1]):
        sys.argv = ["calr", *words]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
