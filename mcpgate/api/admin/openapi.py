"""The OpenAPI 3.1 document of a table of REST routes. Pure."""

import re
from typing import Any

from pydantic.json_schema import models_json_schema

from mcpgate import __version__
from mcpgate.api.http.routing import Route


def _schema_of_query(name: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1} if name in ("limit", "before") else {"type": "string"}


def openapi(routes: list[Route]) -> dict[str, Any]:
    """The document, ready to be written as JSON."""
    models = sorted({route.body for route in routes if route.body is not None}, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    for schema in schemas["$defs"].values():
        if "id" in schema.get("required", ()):
            schema["required"].remove("id")  # the path says it
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            }
        },
    }
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ]
        parameters += [
            {"name": name, "in": "query", "required": False, "description": about, "schema": _schema_of_query(name)}
            for name, about in route.query.items()
        ]
        content = {} if route.status == 204 else {"content": {"application/json": {"schema": {"type": "object"}}}}
        if "format" in route.query:
            content["content"]["text/csv"] = {"schema": {"type": "string"}}
        failed = {"description": "Refused", "content": {"application/json": {"schema": error}}}
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
            "parameters": parameters,
            "responses": {str(route.status): {"description": "Done", **content}, "default": failed},
        }
        if route.body is not None:
            schema = {"$ref": f"#/components/schemas/{route.body.__name__}"}
            operation["requestBody"] = {
                "required": route.method == "PUT",
                "content": {"application/json": {"schema": schema}},
            }
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "mcpgate admin API", "version": __version__},
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
