"""What went wrong at an address, in one sentence with what to do: fsspec's protocols each complain in their own way."""

from __future__ import annotations

_KEYS = "Keys are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws/credentials; the workers of a cluster need them too"
# Words of the error -> what to say of it.
_TROUBLES = (
    (("nocredentials", "unable to locate credentials", "partialcredentials"), f"no credentials were found. {_KEYS}"),
    (("endpointconnection", "could not connect to the endpoint", "connecttimeout"),
     "nothing answers at the endpoint; see AWS_ENDPOINT_URL (http://host:port for a store of your own), on the workers too"),
    (("forbidden", "accessdenied", "access denied", "invalidaccesskeyid", "signaturedoesnotmatch", "permissionerror"),
     f"access was refused. {_KEYS}"),
    (("nosuchbucket", "bucket does not exist"), "there is no such bucket; see its name and AWS_ENDPOINT_URL"),
)  # fmt: skip


def trouble_at(address: str, error: Exception) -> str:
    """The sentence for an address that could not be listed."""
    if isinstance(error, ImportError):
        protocol = address.partition("://")[0]
        return f"{address}: reading {protocol}:// needs a package that is not installed ({error}); from the checkout: pip install '.[cluster]'"
    chain = [error, error.__cause__, error.__context__]
    text = " ".join(f"{type(one).__name__}: {one}" for one in chain if one is not None)
    said = next((said for words, said in _TROUBLES if any(word in text.lower() for word in words)), None)
    return f"{address}: {said} ({error})" if said else f"{address}: {type(error).__name__}: {error}"
