"""Ask basedpyright how completely the installed package is typed, and fail below 100 %.

basedpyright reports 0 symbols and success when it does not find the package: that fails, too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Print the verdict, and what is missing; return the exit status."""
    command = [sys.executable, "-m", "basedpyright"]
    command += ["--verifytypes", "limnion", "--ignoreexternal", "--outputjson"]
    # It asks the first Python on the PATH where packages lie; --pythonpath is not heeded here.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    try:
        report = json.loads(run.stdout)
    except json.JSONDecodeError:
        print(run.stdout + run.stderr, file=sys.stderr)
        return 1
    for diagnostic in report["generalDiagnostics"]:
        print(f"{diagnostic.get('file', 'limnion')}: {diagnostic['message']}")
    completeness = report.get("typeCompleteness")
    if completeness is None:
        return 1
    symbols = completeness["exportedSymbolCounts"]
    for symbol in completeness["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            for diagnostic in symbol["diagnostics"]:
                print(f"{symbol['name']}: {diagnostic['message']}")
    print(f"limnion exports {symbols['withKnownType']} typed symbols", end="")
    print(f", {symbols['withAmbiguousType']} ambiguous, {symbols['withUnknownType']} unknown")
    complete = symbols["withKnownType"] > 0 and completeness["completenessScore"] == 1
    return 0 if complete and run.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
