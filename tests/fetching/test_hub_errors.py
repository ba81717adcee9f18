import httpx2
import pytest

from blogtune.common.errors import UserError
from blogtune.fetching.hub_errors import readable_errors


@pytest.mark.parametrize(
    ("error", "then"),
    [
        (httpx2.ConnectError, "run it again when there is one"),
        (httpx2.ConnectTimeout, "run it again when there is one"),
        (httpx2.ReadError, "what came is kept, run it again"),
    ],
    ids=["nobody there", "no answer", "broken off"],
)
def test_only_where_something_can_have_come_it_is_said_to_be_kept(
    error: type[httpx2.TransportError], then: str
) -> None:
    with pytest.raises(UserError) as caught, readable_errors("a/b", "model", None):
        raise error("secret")
    assert str(caught.value).endswith(f", or it broke ({error.__name__}); {then}")
    assert "secret" not in str(caught.value)
