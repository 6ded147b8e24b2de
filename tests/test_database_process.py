"""A database and its process: forks, exits, signals, and kills."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import RunPython, Shop

import limnion

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@posix
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_a_child_is_told_and_the_parent_goes_on(
    run_python: RunPython, tmp_path: Path, where: str
) -> None:
    done = run_python(
        """
        import asyncio, os, sys, threading, limnion
        place = sys.argv[1] or None
        db = limnion.Database.sync(place)
        db.put("a", "x", 1)
        records = db.query("a")
        stop = threading.Event()
        def write():
            while not stop.is_set():
                db.put("a", "y", 1)
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads: thread.start()
        adb = limnion.Database()
        asyncio.run(adb.put("a", "x", 1))
        bad = 0
        for turn in range(30):
            pid = os.fork()
            if pid == 0:
                code = 0
                for call in (lambda: db.get("a", "x"), lambda: db.get_nowait("a", "x"),
                             lambda: db.put("a", "x", 2), lambda: db.keys("a"),
                             lambda: db.__setitem__("a/x", 3), lambda: db.watch(),
                             lambda: asyncio.run(adb.get("a", "x")),
                             lambda: asyncio.run(adb.put("a", "x", 1))):
                    try:
                        call()
                        code = 1
                    except limnion.ForkedProcessError:
                        pass
                if records[0].value != 1: code = 2
                with limnion.Database.sync() as own:
                    own.put("a", "x", 5)
                    if own.get("a", "x") != 5: code = 3
                asyncio.run(adb.close())
                db.close()
                del db, adb
                os._exit(code)
            bad += os.waitpid(pid, 0)[1] != 0
        stop.set()
        for thread in threads: thread.join()
        assert db.get("a", "x") == 1
        assert db.check().ok
        db.close()
        if place:
            with limnion.Database.sync(place) as again:
                assert again.check().ok
        print("bad", bad)
        """,
        str(tmp_path / "db") if where == "folder" else "",
        seconds=120,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("bad 0\n", "", 0)


@posix
def test_a_child_does_not_keep_the_folder_locked(run_python: RunPython, tmp_path: Path) -> None:
    done = run_python(
        """
        import os, sys, time, limnion
        db = limnion.Database.sync(sys.argv[1])
        db.put("a", "x", 1)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is through
            os._exit(0)
        db.close()
        with limnion.Database.sync(sys.argv[1]) as again:
            print(again.get("a", "x"))
        os.close(write)
        os.waitpid(pid, 0)
        """,
        str(tmp_path / "db"),
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


@posix
def test_a_forking_server_opens_in_its_workers(run_python: RunPython, tmp_path: Path) -> None:
    done = run_python(
        """
        import os, sys, limnion
        db = limnion.Database.sync(limnion.Config(sys.argv[1]))  # as a module does, before the fork
        for turn in range(3):
            pid = os.fork()
            if pid == 0:
                db.put("a", str(turn), turn)
                db.close()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        print(db.keys("a"))
        db.close()
        """,
        str(tmp_path / "db"),
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['0', '1', '2']\n", "", 0)


@posix
@pytest.mark.parametrize("before", ["closed", "open"])
def test_a_server_that_forks_workers(run_python: RunPython, tmp_path: Path, before: str) -> None:
    done = run_python(
        """
        import asyncio, os, sys, time, limnion
        path, before = sys.argv[1:]

        async def prepare():  # as a server does that loads the application before it forks
            db = limnion.Database(path + "/shared")
            await asyncio.gather(*(db.put("a", str(i), i) for i in range(50)))
            if before == "closed":
                await db.close()
            return db

        async def serve(number):
            if before == "open":
                start = time.monotonic()
                for call in (lambda: shared.get("a", "1"), lambda: shared.put("a", "1", 2)):
                    try:
                        await call()
                        return 2
                    except limnion.ForkedProcessError:
                        pass
                if time.monotonic() - start > 1:
                    return 3
            async with limnion.Database(f"{path}/{number}") as db:
                versions = await asyncio.gather(*(db.put("a", str(i), i) for i in range(50)))
                if sorted(versions) != list(range(1, 51)) or len(await db.keys("a")) != 50:
                    return 4
            return 0

        shared = asyncio.run(prepare())
        workers = []
        for number in range(4):
            pid = os.fork()
            if pid == 0:
                if number % 2:
                    import uvloop
                    os._exit(uvloop.run(serve(number)))
                os._exit(asyncio.run(serve(number)))
            workers.append(pid)
        if before == "open":
            asyncio.run(shared.put("a", "meanwhile", 1))
        print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers])
        if before == "open":
            assert asyncio.run(shared.get("a", "meanwhile")) == 1
            asyncio.run(shared.close())
        with limnion.Database.sync(path + "/shared") as db:
            assert db.check().ok and len(db.keys("a")) == 50 + (before == "open")
        """,
        str(tmp_path),
        before,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 0, 0, 0]\n", "", 0)


@posix
def test_a_child_that_outlives_its_parent_does_not_keep_the_folder_locked(
    run_python: RunPython, tmp_path: Path
) -> None:
    done = run_python(
        """
        import os, sys, time, limnion
        db = limnion.Database.sync(sys.argv[1])
        db.put("a", "x", 1)
        pid = os.fork()
        if pid == 0:
            os.close(1)
            os.close(2)
            time.sleep(20)
            os._exit(0)
        print(pid, flush=True)
        os._exit(0)  # without closing anything
        """,
        str(tmp_path / "db"),
    )
    child = int(done.stdout)
    try:
        with limnion.Database.sync(tmp_path / "db") as db:
            assert db.get("a", "x") == 1
            db.put("a", "y", 2)
            assert db.check().ok
        os.kill(child, 0)  # it is there still
    finally:
        os.kill(child, signal.SIGKILL)


WAYS = {
    "awaits in flight": """
        loop = asyncio.new_event_loop()
        async def main():
            global tasks
            tasks = [asyncio.ensure_future(db.put("a", str(i), i)) for i in range(1000)]
            tasks.append(asyncio.ensure_future(db.query("a")))
            await asyncio.sleep({delay})
            for task in tasks: task._log_destroy_pending = False
        loop.run_until_complete(main())
    """,
    "asyncio.run leaves": """
        async def main():
            for i in range(1000): asyncio.ensure_future(db.put("a", str(i), i))
            await asyncio.sleep({delay})
        asyncio.run(main())
    """,
    "queued writes": """
        for i in range(1000): db["a/" + str(i)] = i
    """,
    "an exception": """
        for i in range(1000): db["a/" + str(i)] = i
        sys.exit(0)
    """,
    "threads": """
        sync = limnion.Database.sync()
        def work():
            while True: sync.put("a", "x", 1); sync.keys("a")
        for _ in range(4): threading.Thread(target=work, daemon=True).start()
        time.sleep({delay})
    """,
    "a watch": """
        async def main():
            async def watch():
                async for change in db.watch(): pass
            asyncio.ensure_future(watch())
            await db.put("a", "x", 1)
            await asyncio.sleep({delay})
        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("delay", [0, 0.002, 0.02])
def test_a_program_ends_silently(
    run_python: RunPython, tmp_path: Path, way: str, delay: float
) -> None:
    prelude = """
        import asyncio, sys, threading, time, limnion
        db = limnion.Database(sys.argv[1])
        """
    done = run_python(prelude + WAYS[way].format(delay=delay), str(tmp_path / "db"))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    with limnion.Database.sync(tmp_path / "db") as db:
        assert db.check().ok
        if way in ("queued writes", "an exception"):
            assert len(db.keys("a")) == 1000


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_was_acknowledged_survives_a_kill(run_python: RunPython, tmp_path: Path) -> None:
    for turn in range(3):
        done = run_python(
            """
            import os, signal, sys, limnion
            db = limnion.Database.sync(sys.argv[1])
            start = len(db.history("a", "x"))
            for i in range(20):
                db.put("a", "x", start + i)
                print(start + i, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            str(tmp_path / "db"),
        )
        assert done.stderr == ""
        with limnion.Database.sync(tmp_path / "db") as db:
            assert [e.value for e in db.history("a", "x")] == list(range(20 * (turn + 1)))
            assert db.check().ok


@pytest.fixture
def _default_handler() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt, whatever the runner of the tests made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.usefixtures("_default_handler")
def test_ctrl_c_ends_what_takes_long(shop: Shop) -> None:
    db = shop.sync()
    for start in range(0, 100_000, 20_000):
        db.put_batch(("n", str(i), {"i": i, "w": "x" * 50}) for i in range(start, start + 20_000))

    def sort_for_ever() -> None:
        while True:
            db.query("n", "i >= 0", sort=["w", "-i"], limit=1)

    def wait_for_ever() -> None:
        for _ in db.watch():
            pass

    for work in (sort_for_ever, wait_for_ever):
        sent: list[float] = []

        def send(sent: list[float] = sent) -> None:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.15, send)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            work()
        assert time.perf_counter() - sent[0] < 0.4
        timer.join()
    assert db.get("n", "5") == {"i": 5, "w": "x" * 50}


def test_a_handle_that_is_dropped_frees_the_folder(tmp_path: Path) -> None:
    for i in range(5):
        db = limnion.Database.sync(tmp_path / "db")
        db.put("a", "x", i)
        del db
    with limnion.Database.sync(tmp_path / "db") as db:
        assert db.get("a", "x") == 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are counted in /proc")
def test_closing_frees_every_file_and_thread(tmp_path: Path) -> None:
    def open_and_close() -> None:
        with limnion.Database.sync(tmp_path / "db") as db:
            db.put("a", "x", b"y" * 200_000)
            db.query("a")
            db.get("a", "x", as_of=1)

    open_and_close()
    files, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208
    for _ in range(10):
        open_and_close()
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208
    assert len(os.listdir("/proc/self/task")) <= threads  # noqa: PTH208
