#!/usr/bin/env python3
"""Builds the workspace's tests as `cargo test --workspace` does, and runs their binaries two at a time: tests wait for servers more
than they compute. Each binary's output comes in one piece when it has ended; the tests in documentation come last.

Exits with 101, as cargo does, if a test failed.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

AT_ONCE = 2
# They hold real servers to timeouts of a second, and so have the machine to themselves.
ALONE = {"tests/hdfs.rs", "tests/remote.rs"}
CARGO = ["cargo", "test", "--locked", "--workspace"]


def build():
    """The test binaries in cargo's order: (what cargo calls it, folder of its package, executable)."""
    command = [*CARGO, "--no-run", "--message-format", "json-render-diagnostics"]
    found = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as cargo:
        for line in cargo.stdout:
            message = json.loads(line)
            if message["reason"] != "compiler-artifact" or not message["profile"]["test"] or not message["executable"]:
                continue
            package = Path(message["manifest_path"]).parent
            source = Path(message["target"]["src_path"]).relative_to(package)
            name = str(source) if source.parts[0] == "tests" else f"unittests {source}"
            found.append((package.name, name, package, message["executable"]))
    if cargo.returncode != 0:
        sys.exit(cargo.returncode)
    return sorted(found, key=lambda test: (test[0], test[1].startswith("tests"), test[1]))


def run(test):
    """Runs one; whether it passed."""
    package, name, folder, executable = test
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "CARGO_MANIFEST_DIR": str(folder)}
        status = subprocess.call([executable], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        output.seek(0)
        text = output.read().decode(errors="replace")
    end = "" if status == 0 else f"error: test failed, to rerun pass `-p {package} {selection(name)}`\n"
    # One piece, whoever else prints.
    sys.stdout.write(f"     Running {name} ({executable})\n{text}{end}")
    sys.stdout.flush()
    return status == 0


def selection(name):
    """What has cargo run it by itself."""
    if not name.startswith("tests"):
        return "--lib" if name.endswith("lib.rs") else "--bins"
    source = Path(name)
    return f"--test {source.parent.name if source.name == 'main.rs' else source.stem}"


def main():
    tests = build()
    if not tests:
        sys.exit("no test was built")
    together = [test for test in tests if test[1] not in ALONE]
    alone = [test for test in tests if test[1] in ALONE]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        passed = list(pool.map(run, together))
    passed += map(run, alone)
    failed = [f"{package}: {name}" for (package, name, *_), good in zip(together + alone, passed) if not good]
    if subprocess.call([*CARGO, "--doc", "--no-fail-fast"]) != 0:
        failed.append("tests in documentation")
    if failed:
        print("error: tests failed in", "; ".join(failed))
        sys.exit(101)


if __name__ == "__main__":
    main()
