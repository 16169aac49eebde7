"""ETags as preconditions of writes."""

from __future__ import annotations

import pytest

from mao_shared.errors import PreconditionFailed
from mao_shared.web.dependencies import ANY_REVISION, check_if_match, etag


@pytest.mark.parametrize("expected", [None, ANY_REVISION, 12])
def test_if_match_write_that_may_go_on(expected: int | None) -> None:
    check_if_match(expected, 12)


def test_if_match_stale_write_is_refused_with_current_revision() -> None:
    with pytest.raises(PreconditionFailed) as refused:
        check_if_match(11, 12)
    assert etag(11) in refused.value.detail
    assert refused.value.facts == {"revision": 12}
    assert "GET it again" in (refused.value.next or "")
