"""Google's clients over REST, waiting no longer than they may, and their errors in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from sizewright_catalog.providers.contract import (
    FetchContext,
    Garbage,
    NotConfigured,
    Refused,
    SourceError,
    Throttled,
    Unavailable,
)

#: Reasons of a 403 that are about pace and not about rights.
PACE = ("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "RATE_LIMIT_EXCEEDED")


class Clients:
    """What is asked, and for which project. Raises NotConfigured without SDK or credentials."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        try:
            self.compute: Any = import_module("google.cloud.compute_v1")
            self.billing: Any = import_module("google.cloud.billing_v1")
        except ImportError as error:
            extra = "pip install 'sizewright[gcp]'"
            raise NotConfigured(f"{error.name} is not installed: {extra}") from error
        self._endpoint = settings.get("endpoint_url")
        credentials, project = self._credentials()
        self.project = settings.get("project") or project
        if not self.project:
            raise NotConfigured("no Google Cloud project: set SIZEWRIGHT_GCP_PROJECT")
        self._credentials_given = credentials

    def open(self, client: Any) -> Any:
        """A client of a class of the SDK."""
        options = {"api_endpoint": self._endpoint} if self._endpoint else None
        return client(credentials=self._credentials_given, transport="rest", client_options=options)

    def _credentials(self) -> tuple[Any, str | None]:
        """The application default, or none for a plain-text endpoint: no token goes there."""
        auth: Any = import_module("google.auth")
        if self._endpoint and self._endpoint.startswith("http://"):
            return import_module("google.auth.credentials").AnonymousCredentials(), None
        try:
            credentials, project = auth.default()
        except auth.exceptions.DefaultCredentialsError as error:
            raise NotConfigured(f"Google Cloud credentials: {error}") from error
        return credentials, project


def pages(
    operation: str, call: Callable[..., Any], context: FetchContext, request: Any
) -> Iterator[Any]:
    """The answers of a paged call, one by one. Raises SourceError and Cancelled."""
    retry: Any = import_module("google.api_core.retry")
    errors: Any = import_module("google.api_core.exceptions")
    seconds = context.timeout()
    # A few quick tries; the engine starts over with patience.
    again = retry.Retry(
        predicate=retry.if_exception_type(errors.ServiceUnavailable, errors.TooManyRequests),
        initial=0.2,
        maximum=2.0,
        timeout=min(seconds, 10.0),
    )
    pager = answered(operation, lambda: call(request=request, timeout=seconds, retry=again))
    found = iter(pager.pages)
    tokens: set[str] = set()
    while True:
        context.check()
        page = answered(operation, lambda: next(found, None))
        if page is None:
            return
        if page.next_page_token in tokens:
            raise Garbage(f"{operation}: the pages go in a circle")
        if page.next_page_token:
            tokens.add(page.next_page_token)
        yield page


def answered(operation: str, call: Callable[[], Any]) -> Any:
    """What a call answers. Raises SourceError for what the SDK raises."""
    errors: Any = import_module("google.api_core.exceptions")
    auth: Any = import_module("google.auth.exceptions")
    network: Any = import_module("requests.exceptions")
    json_format: Any = import_module("google.protobuf.json_format")
    try:
        return call()
    except errors.RetryError as error:
        cause = error.cause if error.cause is not None else error
        raise _meaning(operation, cause, errors) from error
    except errors.GoogleAPICallError as error:
        raise _meaning(operation, error, errors) from error
    except auth.RefreshError as error:
        raise Refused(f"{operation}: {error}") from error
    except auth.GoogleAuthError as error:
        raise Unavailable(f"{operation}: {error}") from error
    except network.JSONDecodeError as error:
        raise Garbage(f"{operation}: an answer that is no JSON: {error}") from error
    except network.RequestException as error:
        raise Unavailable(f"{operation}: {error}") from error
    except (json_format.Error, ValueError, KeyError, TypeError) as error:
        raise Garbage(f"{operation}: an answer that cannot be read: {error}") from error


def _meaning(operation: str, error: Any, errors: Any) -> SourceError:
    """What an error of the API means."""
    text = f"{operation}: {error}"
    code = int(getattr(error, "code", 0) or 0)
    reasons = {
        item.get("reason", "") for item in getattr(error, "errors", ()) if isinstance(item, dict)
    }
    if code == 429 or (code == 403 and reasons & set(PACE)):
        response = getattr(error, "response", None)
        wait = response.headers.get("Retry-After", "") if response is not None else ""
        return Throttled(text, float(wait) if wait.isdigit() else 0.0)
    if code in (400, 401, 403, 404):
        return Refused(text)
    return Unavailable(text)
