"""openapi: the contract; checks an answer of the server against openapi/openapi.yaml.

Only what the suite needs of OpenAPI 3.1: find the operation of a path, its answer for a status and a content type, and
validate the body (of a stream: every line) with JSON Schema 2020-12.
"""
import json
import os
import re

import jsonschema
import yaml

from harness import ROOT

DOCUMENT = os.path.join(ROOT, "openapi", "openapi.yaml")


class Violation(AssertionError):
    """An answer that the contract does not allow."""


class Contract:
    def __init__(self, path=DOCUMENT):
        with open(path, encoding="utf-8") as file:
            self.document = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.resolver = jsonschema.RefResolver("", self.document)
        self.templates = sorted(self._templates(), key=lambda t: t[0])
        self.validators = {}

    def _templates(self):
        """(rank, regular expression, path item): concrete paths before templated ones."""
        for template in self.document["paths"]:
            pattern = ""
            for part in re.split(r"(\{\w+\})", template):
                rest = part in ("{pair}", "{prefix}", "{key}")  # these take the rest of the path
                pattern += (".*" if rest else "[^/]*") if part.startswith("{") else re.escape(part)
            rank = (template.count("{"), -len(template))
            yield rank, re.compile(pattern, re.S), self.document["paths"][template]

    def follow(self, node):
        while isinstance(node, dict) and "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def operation(self, method, path):
        method = "get" if method == "HEAD" else method.lower()
        for _, pattern, item in self.templates:
            if pattern.fullmatch(path):
                return item.get(method)
        return None

    def validator(self, schema):
        if id(schema) not in self.validators:
            self.validators[id(schema)] = jsonschema.Draft202012Validator(schema, resolver=self.resolver)
        return self.validators[id(schema)]

    def check_body(self, schema, value, what):
        error = next(self.validator(schema).iter_errors(value), None)
        if error is not None:
            raise Violation("%s: %s at %s in %s" % (what, error.message[:500], list(error.absolute_path), repr(value)[:500]))

    def codes(self, operation, status):
        known = set(self.document["x-error-codes"].get(str(status), []))
        known.update((operation or {}).get("x-error-codes", {}).get(str(status), []))
        return known

    def check_problem(self, operation, status, problem, what):
        self.check_body(self.document["components"]["schemas"]["Problem"], problem, what)
        if problem["status"] != status:
            raise Violation("%s: status %s in the body of a %d" % (what, problem["status"], status))
        if problem["code"] not in self.codes(operation, status):
            raise Violation("%s: code %s with %d is not in the contract" % (what, problem["code"], status))

    def check(self, method, target, status, content_type, body):
        """target: path and query as sent. body: bytes, as a whole. Raises Violation."""
        path = target.split("?", 1)[0]
        what = "%s %s -> %d" % (method, target[:200], status)
        operation = self.operation(method, path)
        kind = (content_type or "").split(";")[0].strip()
        if status >= 400:
            if kind != "application/problem+json":
                raise Violation("%s: content type %r of an error" % (what, content_type))
            if method != "HEAD":
                self.check_problem(operation, status, parse(body, what), what)
            return
        if operation is None:
            raise Violation("%s: no such operation in the contract" % what)
        answer = self.follow(operation["responses"].get(str(status)))
        if answer is None:
            raise Violation("%s: no such status in the contract" % what)
        if "content" not in answer:
            if body:
                raise Violation("%s: a body where there should be none" % what)
            return
        media = answer["content"].get(kind)
        if media is None and not (status == 204 and not kind):
            raise Violation("%s: content type %r is not in the contract" % (what, content_type))
        if method == "HEAD" or media is None:
            return
        if media.get("x-stream"):
            self.check_stream(media, body, what)
        elif kind == "application/json":
            self.check_body(media["schema"], parse(body, what), what)

    def check_stream(self, media, body, what):
        schema = media["schema"]
        if not body.endswith(b"\n"):
            raise Violation("%s: the stream does not end with a line break" % what)
        lines = body.split(b"\n")[:-1]
        for i, line in enumerate(lines):
            if i >= 200 and i < len(lines) - 5 and i % 97:
                continue  # of a long stream: a sample
            value = parse(line, what)
            self.check_body(schema, value, what)
            ends = isinstance(value.get("error"), dict) and not media.get("x-line-errors")  # of a line, not of the stream
            if ("end" in value or ends) != (i == len(lines) - 1):
                raise Violation("%s: line %d of %d is %r" % (what, i, len(lines), line[:300]))


def parse(text, what):
    try:
        return json.loads(text)
    except ValueError as error:
        raise Violation("%s: not JSON (%s): %r" % (what, error, text[:300]))
