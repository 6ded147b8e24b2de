"""What is installed: the wheel's content, its licences, its version, and the price of an import."""

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

import limnion

pytestmark = pytest.mark.timeout(600)  # a wheel is compiled where it has not been yet

ROOT = Path(__file__).parent.parent
MEGABYTE = 1_000_000
IMPORT_SECONDS = 0.020

MEASURED_IMPORT = """
import sys, time
import numpy
before = set(sys.modules)
start = time.process_time()
import limnion
print(time.process_time() - start, *sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    pytest.importorskip("maturin", reason="a wheel can be built only where maturin is")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "maturin", "build", "--release", "--out", folder],
        cwd=ROOT,
        check=True,
    )
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


def info(wheel: zipfile.ZipFile, name: str) -> str:
    """Return a file of the wheel's dist-info folder."""
    return wheel.read(f"limnion-{limnion.__version__}.dist-info/{name}").decode()


def headers(wheel: zipfile.ZipFile, name: str) -> Message:
    """Return a dist-info file that is written as headers."""
    return Parser().parsestr(info(wheel, name))


def import_limnion() -> tuple[float, set[str]]:
    """Return the processor time that `import limnion` takes after numpy, and what it imports."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURED_IMPORT], capture_output=True, text=True, check=True
    )
    seconds, *modules = run.stdout.split()
    return float(seconds), set(modules)


def test_the_version_is_cargos() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text("utf-8"))
    version = cargo["workspace"]["package"]["version"]
    assert limnion.__version__ == version
    assert metadata.version("limnion") == version


def test_the_command_is_installed() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="limnion")
    assert callable(command.load())


def test_an_import_brings_nothing_but_limnion() -> None:
    _, modules = import_limnion()
    roots = {name.partition(".")[0] for name in modules}
    assert roots - sys.stdlib_module_names == {"limnion"}
    assert not roots & {"asyncio", "concurrent", "http", "multiprocessing", "sqlite3", "ssl"}


def test_an_import_is_quick() -> None:
    # The best of many: others may use the machine, and its caches, for some of them.
    assert any(import_limnion()[0] <= IMPORT_SECONDS for _ in range(25))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "limnion",
        f"limnion-{limnion.__version__}.dist-info",
    }
    assert {"limnion/__init__.py", "limnion/_native.pyi", "limnion/py.typed"} <= set(names)
    assert sum(name.startswith("limnion/_native.") for name in names) == 2
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None
    assert Path(wheel.filename).stat().st_size <= 14 * MEGABYTE


def test_the_wheel_carries_its_licences(wheel: zipfile.ZipFile) -> None:
    said = headers(wheel, "METADATA")
    assert said["License-Expression"] == "MIT OR Apache-2.0"
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert info(wheel, f"licenses/{name}") == (ROOT / name).read_text("utf-8")


def test_the_wheel_needs_numpy_alone(wheel: zipfile.ZipFile) -> None:
    needs = headers(wheel, "METADATA").get_all("Requires-Dist", [])
    assert [need for need in needs if "extra ==" not in need] == ["numpy>=1.26"]


def test_one_wheel_serves_every_python(wheel: zipfile.ZipFile) -> None:
    tag: str = headers(wheel, "WHEEL")["Tag"]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert "-abi3-" not in tag
    else:
        assert tag.startswith("cp311-abi3-")
