"""The REST API, version 2015-03-31, as botocore's model of it spells paths, headers and bodies."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from botocore.session import get_session
from botocore.validate import ParamValidator

from siren.platforms.endpoint.auth import Verifier
from siren.platforms.endpoint.code import Code, fetch, unpack
from siren.platforms.endpoint.configuration import Configuration
from siren.platforms.endpoint.errors import ApiError, invalid, too_large
from siren.platforms.endpoint.faults import Faults
from siren.platforms.endpoint.functions import Registry
from siren.platforms.endpoint.invocation import Call
from siren.platforms.endpoint.invoker import DroppedError, Invocation, Invoker
from siren.platforms.endpoint.pool import Pool
from siren.platforms.endpoint.settings import (
    CODE_REQUEST_BYTES,
    CODE_STORAGE_BYTES,
    UNZIPPED_BYTES,
    ZIP_BYTES,
    Settings,
)

log = logging.getLogger(__name__)

ADMIN = "/_siren"
TOKEN = "X-Siren-Token"
FUNCTIONS = "/2015-03-31/functions"
FUNCTION = FUNCTIONS + "/{name}"
REQUEST_ID = "x-amzn-RequestId"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Answers requests.

    Args:
        settings: Of the endpoint.
        registry, pool, invoker: What it works on.
        faults: None if none may be injected.
        about: Told under `/_siren/about`.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        pool: Pool,
        invoker: Invoker,
        faults: Faults | None,
        about: Mapping[str, Any],
    ) -> None:
        self._settings, self._registry, self._pool = settings, registry, pool
        self._invoker, self._faults, self._about = invoker, faults, about
        self._verifier = Verifier(settings.access_key, settings.secret_key, settings.region)
        self._model = get_session().get_service_model("lambda")

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._answer], client_max_size=CODE_REQUEST_BYTES)
        add = app.router.add_route
        add("POST", FUNCTION + "/invocations", self.invoke)
        for slash in ("", "/"):  # older botocore ends these paths so
            add("GET", FUNCTIONS + slash, self.list_functions)
            add("POST", FUNCTIONS + slash, self.create)
            add("GET", "/2016-08-19/account-settings" + slash, self.account)
        add("GET", FUNCTION, self.get)
        add("DELETE", FUNCTION, self.delete)
        add("GET", FUNCTION + "/configuration", self.get_configuration)
        add("PUT", FUNCTION + "/configuration", self.update_configuration)
        add("PUT", FUNCTION + "/code", self.update_code)
        add("GET", FUNCTION + "/versions", self.list_versions)
        add("POST", FUNCTION + "/versions", self.publish)
        add("PUT", "/2017-10-31/functions/{name}/concurrency", self.put_concurrency)
        add("DELETE", "/2017-10-31/functions/{name}/concurrency", self.delete_concurrency)
        add("GET", "/2019-09-30/functions/{name}/concurrency", self.get_concurrency)
        add("GET", "/2017-03-31/tags/{arn}", self.list_tags)
        add("POST", "/2017-03-31/tags/{arn}", self.tag)
        add("DELETE", "/2017-03-31/tags/{arn}", self.untag)
        add("GET", ADMIN + "/about", self.about)
        for method, handler in (
            ("GET", self.list_faults),
            ("POST", self.add_fault),
            ("DELETE", self.clear_faults),
        ):
            add(method, ADMIN + "/faults", handler)
        return app

    # --- invocations -------------------------------------------------------------------------

    async def invoke(self, request: web.Request) -> web.Response:
        """Invoke."""
        name, version = self._reference(request)
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        call = Call(
            request["id"],
            await request.read() or b"{}",
            self._settings.arn(name, version),
            _client_context(request.headers.get("X-Amz-Client-Context", "")),
        )
        invocation = Invocation(name, version, call)
        configuration = self._invoker.check(invocation, kind == "Event")
        headers = {"X-Amz-Executed-Version": configuration.version}
        match kind:
            case "DryRun":
                return web.Response(status=204, headers=headers)
            case "Event":
                self._invoker.post(invocation)
                return web.Response(status=202)
            case "RequestResponse":
                outcome = await self._invoker.run(invocation)
            case _:
                raise invalid(f"{kind!r} is no invocation type: choose RequestResponse, Event or DryRun")
        if outcome.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log).decode()
        return web.Response(body=outcome.payload, headers=headers, content_type="application/json")

    # --- functions ---------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        """CreateFunction."""
        asked = await self._body(request, "CreateFunction")
        self._registry.check_new(asked)
        code = await self._code(asked["Code"])
        self._registry.check_new(asked)  # another may have come first while the code was unpacked
        made = self._registry.create(asked, code, self._now)
        if asked.get("Publish"):
            made = self._registry.publish(made.name, {}, self._now, settled=False)
        return self._configuration(made, 201)

    async def get(self, request: web.Request) -> web.Response:
        """GetFunction."""
        name, version = self._reference(request)
        function = self._registry.function(name)
        told: dict[str, Any] = {
            "Configuration": self._registry.configuration(name, version).to_json(self._now),
            "Code": {"RepositoryType": "S3"},
        }
        if function.tags:
            told["Tags"] = function.tags
        if function.reserved is not None:
            told["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved}
        return web.json_response(told)

    async def get_configuration(self, request: web.Request) -> web.Response:
        """GetFunctionConfiguration."""
        return self._configuration(self._registry.configuration(*self._reference(request)))

    async def list_functions(self, request: web.Request) -> web.Response:
        """ListFunctions, in one page."""
        return web.json_response({"Functions": [each.latest.to_json(self._now) for each in self._registry]})

    async def list_versions(self, request: web.Request) -> web.Response:
        """ListVersionsByFunction, in one page."""
        function = self._registry.function(self._reference(request)[0])
        return web.json_response({"Versions": [each.to_json(self._now) for each in function.all()]})

    async def update_configuration(self, request: web.Request) -> web.Response:
        """UpdateFunctionConfiguration."""
        name, _ = self._reference(request)
        asked = await self._body(request, "UpdateFunctionConfiguration", FunctionName=name)
        del asked["FunctionName"]
        changes = self._registry.reconfigured(name, asked)
        return self._configuration(self._update(name, asked, changes))

    async def update_code(self, request: web.Request) -> web.Response:
        """UpdateFunctionCode."""
        name, _ = self._reference(request)
        asked = await self._body(request, "UpdateFunctionCode", FunctionName=name)
        latest = self._registry.function(name).latest
        self._registry.check_settled(latest, self._now)
        changes: dict[str, Any] = {"code": await self._code(asked)}
        if "Architectures" in asked:
            changes["architectures"] = tuple(asked["Architectures"])
        if asked.get("DryRun"):
            return self._configuration(latest)
        made = self._update(name, asked, changes)
        if asked.get("Publish"):
            made = self._registry.publish(name, {}, self._now, settled=False)
        return self._configuration(made)

    async def publish(self, request: web.Request) -> web.Response:
        """PublishVersion."""
        name, _ = self._reference(request)
        asked = await self._body(request, "PublishVersion", FunctionName=name)
        del asked["FunctionName"]
        return self._configuration(self._registry.publish(name, asked, self._now), 201)

    async def delete(self, request: web.Request) -> web.Response:
        """DeleteFunction."""
        self._pool.retire(self._registry.delete(*self._reference(request)))
        return web.Response(status=204)

    # --- concurrency, account and tags -------------------------------------------------------

    async def put_concurrency(self, request: web.Request) -> web.Response:
        """PutFunctionConcurrency."""
        name, _ = self._reference(request)
        asked = await self._body(request, "PutFunctionConcurrency", FunctionName=name)
        self._registry.reserve(name, asked["ReservedConcurrentExecutions"])
        return web.json_response({"ReservedConcurrentExecutions": asked["ReservedConcurrentExecutions"]})

    async def get_concurrency(self, request: web.Request) -> web.Response:
        """GetFunctionConcurrency."""
        reserved = self._registry.function(self._reference(request)[0]).reserved
        return web.json_response({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def delete_concurrency(self, request: web.Request) -> web.Response:
        """DeleteFunctionConcurrency."""
        self._registry.reserve(self._reference(request)[0], None)
        return web.Response(status=204)

    async def account(self, request: web.Request) -> web.Response:
        """GetAccountSettings."""
        functions = list(self._registry)
        sizes = {
            each.code.sha256: each.code.zipped_bytes for function in functions for each in function.all()
        }
        limit = {
            "TotalCodeSize": CODE_STORAGE_BYTES,
            "CodeSizeUnzipped": UNZIPPED_BYTES,
            "CodeSizeZipped": ZIP_BYTES,
            "ConcurrentExecutions": self._settings.concurrency,
            "UnreservedConcurrentExecutions": self._settings.concurrency - self._registry.reserved(),
        }
        usage = {"TotalCodeSize": sum(sizes.values()), "FunctionCount": len(functions)}
        return web.json_response({"AccountLimit": limit, "AccountUsage": usage})

    async def list_tags(self, request: web.Request) -> web.Response:
        """ListTags."""
        return web.json_response({"Tags": self._tags(request)})

    async def tag(self, request: web.Request) -> web.Response:
        """TagResource."""
        tags = self._tags(request)
        tags |= (await self._body(request, "TagResource", Resource=request.match_info["arn"]))["Tags"]
        return web.Response(status=204)

    async def untag(self, request: web.Request) -> web.Response:
        """UntagResource."""
        tags = self._tags(request)
        for key in request.query.getall("tagKeys", []):
            tags.pop(key, None)
        return web.Response(status=204)

    # --- for tests and reports ---------------------------------------------------------------

    async def about(self, request: web.Request) -> web.Response:
        """What this endpoint is, how it confines functions, and what it has run."""
        return web.json_response({**self._about, **self._pool.counts()})

    async def list_faults(self, request: web.Request) -> web.Response:
        """The faults, and how often each has happened."""
        return web.json_response(self._allowed_faults().to_json())

    async def add_fault(self, request: web.Request) -> web.Response:
        """Injects a fault."""
        self._allowed_faults().add(_object(await request.read()))
        return web.Response(status=204)

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Forgets the faults."""
        self._allowed_faults().clear()
        return web.Response(status=204)

    # --- helpers -----------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks who asks, and turns errors into the API's."""
        request["id"] = str(uuid.uuid4())
        response: web.StreamResponse
        try:
            if request.path.startswith(ADMIN):
                self._check_token(request)
            else:
                self._verifier.check(request.method, request.raw_path, request.headers, await request.read())
            response = await handler(request)
        except DroppedError:
            if request.transport:
                request.transport.abort()
            response = web.Response()
        except Exception as error:
            answer = _as_api_error(error, request)
            response = web.Response(
                status=answer.status,
                body=answer.body(),
                headers=answer.headers,
                content_type="application/json",
            )
        response.headers[REQUEST_ID] = request["id"]
        return response

    def _check_token(self, request: web.Request) -> None:
        if not hmac.compare_digest(request.headers.get(TOKEN, ""), self._settings.secret_key):
            raise ApiError(403, "AccessDeniedException", f"{TOKEN} must be the secret key of this endpoint")

    def _allowed_faults(self) -> Faults:
        if self._faults is None:
            raise ApiError(403, "AccessDeniedException", "no faults can be injected: start with --faults")
        return self._faults

    def _reference(self, request: web.Request) -> tuple[str, str | None]:
        return self._registry.reference(request.match_info["name"], request.query.get("Qualifier"))

    async def _body(self, request: web.Request, operation: str, **path: str) -> dict[str, Any]:
        """A request's JSON and what its path says, checked against the API's model."""
        asked = _object(await request.read()) | path
        shape = self._model.operation_model(operation).input_shape
        assert shape is not None
        report = ParamValidator().validate(asked, shape)
        if report.has_errors():
            raise ApiError(400, "ValidationException", report.generate_report())
        return asked

    async def _code(self, asked: Mapping[str, Any]) -> Code:
        """Fetches and unpacks a package, off the loop."""
        loop, folder = asyncio.get_running_loop(), self._settings.root / "code"
        if "ZipFile" in asked:
            try:
                content = base64.b64decode(asked["ZipFile"], validate=True)
            except binascii.Error as error:
                raise invalid(f"Code.ZipFile is no base64: {error}") from error
        elif asked.get("S3Bucket") and asked.get("S3Key"):
            content = await loop.run_in_executor(
                None,
                fetch,
                self._settings.s3_url,
                self._settings.region,
                asked["S3Bucket"],
                asked["S3Key"],
                asked.get("S3ObjectVersion"),
            )
        else:
            raise invalid("Please provide a source for function code: ZipFile, or S3Bucket and S3Key")
        return await loop.run_in_executor(None, unpack, content, folder, "ZipFile" not in asked)

    def _update(self, name: str, asked: Mapping[str, Any], changes: dict[str, Any]) -> Configuration:
        old = self._registry.function(name).latest
        new = self._registry.update(name, self._now, asked.get("RevisionId"), **changes)
        self._pool.retire([old])
        return new

    def _tags(self, request: web.Request) -> dict[str, str]:
        return self._registry.function(self._registry.reference(request.match_info["arn"])[0]).tags

    def _configuration(self, configuration: Configuration, status: int = 200) -> web.Response:
        return web.json_response(configuration.to_json(self._now), status=status)


def _as_api_error(error: Exception, request: web.Request) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return too_large(CODE_REQUEST_BYTES, "CreateFunction")
    if isinstance(error, web.HTTPException):
        return ApiError(404, "UnknownOperationException", f"no operation {request.method} {request.path}")
    log.error("%s %s", request.method, request.path, exc_info=error)
    return ApiError(500, "ServiceException", "An error occurred; the endpoint's log tells which.")


def _client_context(header: str) -> str | None:
    try:
        return base64.b64decode(header, validate=True).decode() or None
    except ValueError as error:
        raise ApiError(
            400, "InvalidRequestContentException", f"Client context must be base64 of JSON: {error}"
        ) from error


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError(400, "SerializationException", f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "SerializationException", "the body is no JSON object")
    return value
