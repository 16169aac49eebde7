"""Put JSON-LD contexts into the HTTP cache of rocrate-validator; run by the evidence tools' Python.

Arguments: the cache's path without its suffix, then pairs of a URL and the file with its content.
"""

import importlib
import io
import sys
from pathlib import Path

import requests
from urllib3 import HTTPResponse


def main(cache: str, *pairs: str) -> None:
    session = importlib.import_module("requests_cache").CachedSession(cache, backend="sqlite")
    for url, file in zip(pairs[::2], pairs[1::2], strict=True):
        request = requests.Request("GET", url).prepare()
        raw = HTTPResponse(
            io.BytesIO(Path(file).read_bytes()),
            headers={"Content-Type": "application/ld+json"},
            status=200,
            preload_content=False,
        )
        response = requests.adapters.HTTPAdapter().build_response(request, raw)
        session.cache.save_response(response)
    session.close()


main(*sys.argv[1:])
