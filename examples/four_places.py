"""Ask one question of four places at once: memory, a folder of Parquet, a bucket, a database.

    pip install limnion pyarrow "moto[server]"
    python examples/four_places.py
    python examples/four_places.py --endpoint https://HOST --bucket NAME "How do I rotate keys?"

Without an endpoint a small S3-compatible server is started on this machine. With one, keys come
from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY); `examples-notes` is written there.
"""

import argparse
import contextlib
import http.client
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

import limnion

COLLECTION = "examples-notes"
MEMORY = [
    "The login page is slow this morning; somebody restarted the cache.",
    "Keys were rotated on Monday, and two clients still use the old ones.",
]
FOLDER = [
    "Keys are rotated every 90 days: make the new one, deploy it, then revoke the old one.",
    "Backups run at night, and are restored into an empty folder to be tried.",
]
BUCKET = [
    "An incident in March: a revoked key was still in use by the billing job.",
    "Traffic doubles in the last week of each quarter.",
]
DATABASE = [
    "Ann prefers to be asked before anything is deployed on a Friday.",
    "Ann looks after the keys of the payment service.",
]


@contextlib.contextmanager
def server_of_our_own() -> Iterator[str]:
    """Start an S3-compatible server on this machine, and give its address."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - who has a server needs none

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def search(question: str, endpoint: str, bucket: str, folder: Path, **keys: str) -> None:
    """Put notes into four places, and print those that fit the question best."""
    embedder = limnion.Embedder.builtin()

    memory = limnion.LocalBackend("memory")
    memory.upsert(COLLECTION, range(len(MEMORY)), embedder.embed_batch(MEMORY))

    table = pa.table({"id": range(len(FOLDER)), "vector": list(embedder.embed_batch(FOLDER))})
    parquet.write_table(table, folder / f"{COLLECTION}.parquet")
    files = limnion.FsBackend("folder", folder)

    objects = limnion.ObjectStoreBackend(
        "bucket", f"s3://{bucket}", endpoint=endpoint, allow_http=True, from_env=not keys, **keys
    )
    objects.put_rows(COLLECTION, range(len(BUCKET)), embedder.embed_batch(BUCKET))

    with limnion.Database.sync() as database:
        for number, (text, vector) in enumerate(
            zip(DATABASE, embedder.embed_batch(DATABASE), strict=True)
        ):
            database.put(COLLECTION, f"note-{number}", text, vector=vector)

        lake = limnion.Lake(
            backends=[memory, files, objects, limnion.StoreBackend(database, "database")]
        )
        hits = lake.search_federated(COLLECTION, embedder.embed(question), k=5, timeout=30)
        notes = {"memory": MEMORY, "folder": FOLDER, "bucket": BUCKET}
        print(question)
        for hit in hits:
            text = (
                database.get(COLLECTION, hit.id)
                if isinstance(hit.id, str)
                else notes[hit.backend][hit.id]
            )
            print(f"  {hit.score:.2f}  {hit.backend:8}  {text}")


def main() -> None:
    """Run with the server that is named, or with one of our own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("question", nargs="?", default="Who is to rotate the keys, and when?")
    parser.add_argument("--endpoint", help="the address of an S3-compatible server")
    parser.add_argument("--bucket", default="limnion-examples", help="a bucket there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.endpoint:
            search(options.question, options.endpoint, options.bucket, Path(folder))
            return
        with server_of_our_own() as endpoint:
            server = http.client.HTTPConnection(endpoint.removeprefix("http://"))
            server.request("PUT", f"/{options.bucket}")
            server.getresponse()
            server.close()
            keys = {"access_key_id": "any", "secret_access_key": "any", "region": "us-east-1"}
            search(options.question, endpoint, options.bucket, Path(folder), **keys)


if __name__ == "__main__":
    main()
