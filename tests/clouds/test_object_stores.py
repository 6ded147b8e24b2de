"""Object stores, over real HTTP: a server of S3 on this machine."""

import http.client
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from support import RunPython, random_vectors

import limnion
from limnion import errors
from limnion.protocols import Backend

EYE = np.eye(4, dtype=np.float32)
KEYS: dict[str, Any] = {
    "access_key_id": "any",
    "secret_access_key": "any",
    "region": "us-east-1",
    "allow_http": True,
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> str:
    name = "b-" + str(abs(hash(request.node.name)))
    put(endpoint, f"/{name}")
    return name


def put(endpoint: str, place: str, content: bytes = b"") -> None:
    server = http.client.HTTPConnection(endpoint.removeprefix("http://"))
    server.request("PUT", place, content, {"Content-Type": "application/octet-stream"})
    assert server.getresponse().status == 200
    server.close()


def objects(endpoint: str, url: str, **options: Any) -> limnion.ObjectStoreBackend:
    return limnion.ObjectStoreBackend("cloud", url, endpoint=endpoint, **{**KEYS, **options})


def test_a_bucket_is_searched_and_what_is_replaced_there_is_found(
    endpoint: str, bucket: str
) -> None:
    cloud = objects(endpoint, f"s3://{bucket}/some/folder")
    assert isinstance(cloud, Backend)
    assert cloud.list_collections() == []
    cloud.put_rows("docs", [1, 2, 3, 4], EYE)
    cloud.put_rows("a/b", ["x", "y"], EYE[:2])
    assert cloud.list_collections() == ["a/b", "docs"]
    lake = limnion.Lake(backends=[cloud])
    assert lake.search_one("docs", EYE[2], k=1)[0] == limnion.LakeHit("cloud", "docs", 3, 1.0, 0.0)
    assert lake.search_one("a/b", EYE[1], k=1)[0].id == "y"
    assert lake.stats().primes == 2
    assert lake.search_one("docs", EYE[0], k=1)[0].id == 1
    assert lake.stats().primes == 2
    cloud.put_rows("docs", [7], EYE[:1])
    assert [hit.id for hit in lake.search_one("docs", EYE[0])] == [7]
    assert lake.stats().primes == 3
    assert cloud.drop_collection("docs")
    with pytest.raises(limnion.UnknownCollection, match="docs"):
        lake.search_one("docs", EYE[0])


def test_large_objects_come_in_parts_and_whole(endpoint: str, bucket: str) -> None:
    rows = random_vectors(30_000, 128)
    cloud = objects(endpoint, f"s3://{bucket}")
    cloud.put_rows("docs", range(100, 30_100), rows)
    lake = limnion.Lake(backends=[cloud])
    assert lake.prime("docs").rows == 30_000
    assert [lake.search_one("docs", rows[at], k=1)[0].id for at in (0, 9_999, 29_999)] == [
        100,
        10_099,
        30_099,
    ]


async def test_the_loop_runs_on_while_a_bucket_is_read(endpoint: str, bucket: str) -> None:
    cloud = objects(endpoint, f"s3://{bucket}")
    cloud.put_rows("docs", range(4), EYE)
    lake = limnion.Lake(backends=[cloud])
    hits = await lake.search_one_async("docs", EYE[3], k=1)
    assert hits[0].id == 3
    hits = await lake.search_federated_async("docs", EYE[2], k=1)
    assert hits[0].id == 2


def test_readers_see_the_old_rows_or_the_new_ones(endpoint: str, bucket: str) -> None:
    cloud = objects(endpoint, f"s3://{bucket}")
    cloud.put_rows("docs", range(4), EYE)
    lake = limnion.Lake(backends=[cloud])
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            ids = {hit.id for hit in lake.search_one("docs", EYE[0])}
            if ids not in ({0, 1, 2, 3}, {4, 5, 6, 7}):
                wrong.append(ids)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(12):
        cloud.put_rows("docs", range(4, 8) if turn % 2 else range(4), EYE)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_what_goes_wrong_is_told(endpoint: str, bucket: str) -> None:
    nowhere = objects(endpoint, "s3://no-such-bucket-here")
    lake = limnion.Lake(backends=[nowhere])
    with pytest.raises(errors.LakeError, match="cloud"):
        lake.search_one("docs", EYE[0], backend="cloud")
    silent = objects("http://127.0.0.1:9", f"s3://{bucket}", attempts=1)
    with pytest.raises(errors.BackendError, match="cloud"):
        silent.list_collections()
    with pytest.raises(errors.InvalidArgumentError, match="no_such_setting"):
        objects(endpoint, f"s3://{bucket}", no_such_setting=1)
    put(endpoint, f"/{bucket}/docs.npy", b"\x93NUMPY\x01\x00not an array")
    with pytest.raises(errors.BackendError, match=r"docs\.npy"):
        limnion.Lake(backends=[objects(endpoint, f"s3://{bucket}")]).search_one("docs", EYE[0])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_the_bucket_too(endpoint: str, bucket: str) -> None:
    cloud = objects(endpoint, f"s3://{bucket}")
    cloud.put_rows("docs", range(4), EYE)
    lake = limnion.Lake(backends=[cloud])
    assert lake.search_one("docs", EYE[1], k=1)[0].id == 1

    def child() -> None:
        cloud.put_rows("more", range(4), EYE)
        good = lake.search_one("docs", EYE[2], k=1)[0].id == 2
        good &= lake.search_one("more", EYE[3], k=1)[0].id == 3
        os._exit(0 if good else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert lake.search_one("more", EYE[0], k=1)[0].id == 0


def test_a_bundle_in_a_bucket_is_shared(endpoint: str, bucket: str) -> None:
    rows = random_vectors(2_000, 32)
    shelf = limnion.ObjectShelf(f"s3://{bucket}/bundles", endpoint=endpoint, **KEYS)
    cloud = objects(endpoint, f"s3://{bucket}/rows")
    cloud.put_rows("docs", range(2_000), rows)
    one, two = limnion.Lake(backends=[cloud]), limnion.Lake(backends=[cloud])
    witness = one.publish_bundle("docs", shelf)
    assert limnion.LakeBundle.read(shelf).witness == witness
    key = ("cloud", "docs")
    assert one.refresh_from_bundle_dir(key, shelf) is limnion.RefreshResult.UP_TO_DATE
    two.take_bundle("docs", shelf, backend="cloud")
    assert two.search_one("docs", rows[7], k=1)[0].id == 7
    assert two.stats().primes == 0


def test_a_process_ends_in_the_midst_of_a_request(run_python: RunPython, endpoint: str) -> None:
    done = run_python(
        """
        import sys, threading, limnion
        import numpy  # what a thread imports while the interpreter ends, ends it
        keys = dict(access_key_id="any", secret_access_key="any", region="r", allow_http=True)
        lake = limnion.Lake(backends=[
            limnion.ObjectStoreBackend("cloud", "s3://b", endpoint=sys.argv[1], **keys)
        ])
        ask = lambda: lake.search_one("docs", [1.0, 0.0])
        threading.Thread(target=ask, daemon=True).start()
        """,
        endpoint,
    )
    assert (done.returncode, done.stderr) == (0, "")
