"""boto3 clients that wait no longer than they may, and their errors in the engine's words."""

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

THROTTLING = {
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}
REFUSING = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
}
#: What is kept of a message that may be as long as the answer.
ERROR_LENGTH = 200
#: The price list and the savings plans are served for all regions by one of few.
HOME_REGION = "us-east-1"


def session(settings: Mapping[str, str]) -> Any:
    """A boto3 session. Raises NotConfigured without the SDK, the profile or any credentials."""
    try:
        boto3 = import_module("boto3")
    except ImportError as error:
        raise NotConfigured("boto3 is not installed: pip install 'sizewright[aws]'") from error
    from botocore.exceptions import BotoCoreError

    try:
        made = boto3.Session(profile_name=settings.get("profile") or None)
        if made.get_credentials() is None:
            raise NotConfigured("no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID")
    except BotoCoreError as error:
        raise NotConfigured(f"AWS credentials: {error}") from error
    return made


def client(made: Any, service: str, region: str, context: FetchContext) -> Any:
    """A client of a service. Few quick tries: the engine starts a scope again, with patience."""
    from botocore.config import Config

    settings = context.settings
    seconds = context.timeout()
    return made.client(
        service,
        region_name=region,
        endpoint_url=settings.get(f"{service}_endpoint_url") or settings.get("endpoint_url"),
        config=Config(
            connect_timeout=min(seconds, 10.0),
            read_timeout=seconds,
            retries={"mode": "standard", "total_max_attempts": 3},
            user_agent_extra="sizewright",
        ),
    )


def pages(
    made: Any, operation: str, context: FetchContext, **asked: Any
) -> Iterator[Mapping[str, Any]]:
    """The answers of an operation, page by page. Raises SourceError and Cancelled."""
    found = iter(made.get_paginator(operation).paginate(**asked))
    while True:
        context.check()
        page = answered(operation, lambda: next(found, None))
        if page is None:
            return
        yield page


def listed(context: FetchContext, setting: str) -> list[str]:
    """The words of a setting, comma-separated."""
    words = context.settings.get(setting, "").split(",")
    return [word.strip() for word in words if word.strip()]


def only(context: FetchContext) -> dict[str, Any]:
    """The filter for the types of the settings, of which the refresh is told; none for all."""
    patterns = listed(context, "instance_types")
    context.filtered |= bool(patterns)
    return {"Filters": [{"Name": "instance-type", "Values": patterns}]} if patterns else {}


def answered(operation: str, call: Callable[[], Any]) -> Any:
    """What a call answers. Raises SourceError for what the SDK raises."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        return call()
    except exceptions.ClientError as error:
        raise _refusal(operation, error) from error
    except (exceptions.NoCredentialsError, exceptions.CredentialRetrievalError) as error:
        raise NotConfigured(f"{operation}: {error}") from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise Unavailable(f"{operation}: {error}") from error
    except (exceptions.ParamValidationError, exceptions.UnknownEndpointError) as error:
        raise NotConfigured(f"{operation}: {error}") from error
    except (exceptions.BotoCoreError, ResponseParserError, ValueError, KeyError) as error:
        # The parser quotes the whole answer.
        words = str(error)[:ERROR_LENGTH]
        raise Garbage(f"{operation}: an answer that cannot be read: {words}") from error


def _refusal(operation: str, error: Any) -> SourceError:
    """What an error answer means."""
    about = error.response.get("Error", {})
    code = about.get("Code", "")
    http = error.response.get("ResponseMetadata", {})
    text = f"{operation}: {code}: {about.get('Message', '')}"
    status = int(http.get("HTTPStatusCode", 0))
    if code in THROTTLING or status == 429:
        wait = http.get("HTTPHeaders", {}).get("retry-after", "")
        return Throttled(text, float(wait) if wait.isdigit() else 0.0)
    if code in REFUSING or status in (401, 403):
        return Refused(text)
    if status >= 500:
        return Unavailable(text)
    return Refused(text)
