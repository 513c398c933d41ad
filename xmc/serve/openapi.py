"""The OpenAPI description of a server, from the models of its bodies."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from xmc.serve.bodies import Body, EmbedBody, PredictBody
from xmc.serve.change_bodies import LabelsBody, RememberBody
from xmc.version import __version__

__all__ = ["POSTED", "described"]

POSTED: dict[str, tuple[type[Body], str, str]] = {
    "/predict": (PredictBody, "The best labels of each text or vector.", "Answers"),
    "/embed": (EmbedBody, "The embedding of each text.", "Embeddings"),
    "/labels": (LabelsBody, "Labels are added, updated and removed: all of it or nothing.", "Changed"),
    "/remember": (RememberBody, "Judged queries join the memory, and vote for their labels.", "Changed"),
}
"""Routes with a body: its model, what they do, and the schema of their answers."""
CHANGING = ("/labels", "/remember")
"""Routes that need the server's token."""
READ = {
    "/": "A page to try queries and change labels by hand.",
    "/version": "The number of the last change.",
    "/labels": "Labels whose text holds some words, given as `text`; at most `limit` of them.",
    "/labels/{uid}": "A label with its text and columns.",
    "/health": "Whether the process lives.",
    "/ready": "Whether requests are answered.",
    "/metrics": "Counters in Prometheus' text format.",
    "/openapi.json": "This description.",
}
"""Routes that are read, and what they give."""
PARAMETERS: dict[str, list[tuple[str, str, str]]] = {
    "/labels": [("text", "query", "string"), ("limit", "query", "integer")],
    "/labels/{uid}": [("uid", "path", "string")],
}
REFUSED = {
    "400": "no HTTP, or no JSON",
    "401": "a change without the server's token",
    "403": "the server has no token, and changes nothing",
    "408": "the request came too slowly",
    "409": "a label to add is there already, or one to update or remove is not",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "422": "a field is unknown, wrong or beyond a limit",
    "429": "too many requests wait",
    "503": "the server is starting or stopping",
    "504": "the answer took too long",
}
"""Statuses of requests that get no answer."""
NUMBERS = {"type": "array", "items": {"type": "number"}}
ANSWERS: dict[str, Any] = {
    "Label": {
        "type": "object",
        "required": ["uid", "text", "score"],
        "properties": {
            "uid": {"type": "string"},
            "text": {"type": "string"},
            "score": {"type": "number"},
            "probability": {"type": "number"},
            "decision": {"enum": ["automatic", "person", "none"]},
            "explanation": {"type": "array", "items": {"type": "object"}},
        },
    },
    "Answer": {
        "type": "object",
        "required": ["labels"],
        "properties": {
            "labels": {"type": "array", "items": {"$ref": "#/components/schemas/Label"}},
            "set": {"type": "object"},
            "sets": {"type": "object"},
        },
    },
    "Answers": {
        "type": "object",
        "required": ["answers", "version"],
        "properties": {
            "answers": {"type": "array", "items": {"$ref": "#/components/schemas/Answer"}},
            "version": {"type": "integer"},
        },
    },
    "Embeddings": {
        "type": "object",
        "required": ["embeddings"],
        "properties": {"embeddings": {"type": "array", "items": NUMBERS}},
    },
    "Changed": {
        "type": "object",
        "required": ["version"],
        "properties": {
            "version": {"type": "integer"},
            "labels": {"type": "integer"},
            "remembered": {"type": "integer"},
            "scaled": {"type": "array", "items": {"type": "object"}},
        },
    },
    "Failure": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["status", "message"],
                "properties": {"status": {"type": "integer"}, "message": {"type": "string"}},
            }
        },
    },
}
"""Schemas of answers."""


def described() -> dict[str, Any]:
    """The document, as JSON values."""
    models = [(model, "validation") for model, _, _ in POSTED.values()]
    _, bodies = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    paths: dict[str, Any] = {}
    for route, (model, summary, answer) in POSTED.items():
        paths.setdefault(route, {})["post"] = {
            "summary": summary,
            "requestBody": {"required": True, "content": _json(model.__name__)},
            "responses": {"200": {"description": summary, "content": _json(answer)}, **_refusals()},
        }
        if route in CHANGING:
            paths[route]["post"]["security"] = [{"token": []}]
    for route, summary in READ.items():
        parameters = [
            {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}}
            for name, place, kind in PARAMETERS.get(route, ())
        ]
        paths.setdefault(route, {})["get"] = {
            "summary": summary,
            "parameters": parameters,
            "responses": {"200": {"description": summary}, "default": _refusal("why there is no answer")},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "xmc serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**bodies.get("$defs", {}), **ANSWERS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _refusal(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json("Failure")}


def _refusals() -> dict[str, Any]:
    return {status: _refusal(description) for status, description in REFUSED.items()}
