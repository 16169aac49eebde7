"""The part of `gateway.MaoClient` for evidence of runs."""

from __future__ import annotations

from typing import Any

from .gateway_data import Writable
from .gateway_http import GatewayHttp
from .responses import json_of

READING = 900.0  # seconds; every byte of a run is read before the first one of the answer comes


class EvidenceCalls:
    http: GatewayHttp

    def crate(self, run_id: str, out: Writable, *, data: bool = True) -> int:
        """Writes the run's RO-Crate, a zip file, to `out`; the number of bytes."""
        params = {"data": "true" if data else "false"}
        with self.http.stream(f"/runs/{run_id}/crate", params, timeout=READING) as response:
            return sum(out.write(piece) for piece in response.iter_raw())

    def crate_metadata(self, run_id: str) -> dict[str, Any]:
        """What the crate says: all its files with sizes and digests, as JSON-LD."""
        return dict(json_of(self.http.send("GET", f"/runs/{run_id}/crate/metadata", timeout=READING)))

    def verify_run(self, run_id: str) -> dict[str, Any]:
        """`ok`, how much was read, and `faults`: what is not as the run's record says."""
        return dict(json_of(self.http.send("GET", f"/runs/{run_id}/verify", timeout=READING)))
