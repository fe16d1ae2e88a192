#!/usr/bin/python3
"""openapi: checks openapi/openapi.yaml.

  1  the structure: OpenAPI 3.1, every operation has operationId (unique), summary, known tags, responses with descriptions
  2  every $ref resolves; every schema is a valid JSON Schema 2020-12
  3  every example fits its schema; every stream has examples or lines that can be told apart
  4  every parameter of a path template is declared in its path, and no other
  5  every error code in it is known to the code (include/cheetah/err.h, src/service, src/http, src/lm, src/reduce), and every slug
     of err.h and src/http that a client can see is in it
  6  no member without a value and no member whose name has a blank, which is what YAML makes of a comma in an unquoted text
  7  the operations are those of the table in src/http/routes.c, no more and no fewer, and need the right that the table names

    tests/lint/openapi.py [ROOT]
"""
import os
import re
import sys

import jsonschema
import yaml

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
# Slugs of err.h that never reach a client of HTTP: results of calls, not errors, what the server makes another answer of, and one of the line
# protocol (inherit counts it as skipped).
INTERNAL = {"ok", "pending", "cancelled", "inherit_sources_missing"}


def shape(path):
    """A path without the names of its parts."""
    return re.sub(r"\{\w+\}", "{}", path)


class Linter:
    def __init__(self, root):
        self.root = root
        with open(os.path.join(root, "openapi", "openapi.yaml"), encoding="utf-8") as file:
            self.document = yaml.safe_load(file)
        self.resolver = jsonschema.RefResolver("", self.document)
        self.complaints = []
        self.described = set()

    def complain(self, where, what):
        self.complaints.append("openapi.yaml: %s: %s" % (where, what))

    def follow(self, node):
        while isinstance(node, dict) and "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def operations(self):
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                if method in METHODS:
                    yield path, method, item, operation

    # 1

    def structure(self):
        document = self.document
        if not str(document.get("openapi", "")).startswith("3.1."):
            self.complain("openapi", "not 3.1")
        for field in ("title", "version"):
            if not document.get("info", {}).get(field):
                self.complain("info", "no " + field)
        tags = {tag["name"] for tag in document.get("tags", [])}
        used, seen = set(), set()
        for path, item in document["paths"].items():
            if not path.startswith("/"):
                self.complain(path, "does not start with a slash")
            for field in set(item) - METHODS - {"parameters", "summary", "description"}:
                self.complain(path, "unknown field " + field)
        for path, method, _, operation in self.operations():
            where = "%s %s" % (method.upper(), path)
            for field in ("operationId", "summary", "tags", "responses"):
                if not operation.get(field):
                    self.complain(where, "no " + field)
            if operation.get("operationId") in seen:
                self.complain(where, "operationId %s is not unique" % operation["operationId"])
            seen.add(operation.get("operationId"))
            for tag in operation.get("tags", []):
                used.add(tag)
                if tag not in tags:
                    self.complain(where, "tag %r is not declared" % tag)
            if method in ("get", "delete", "head") and "requestBody" in operation:
                self.complain(where, "has a request body")
            self.responses(where, operation)
        for tag in tags - used:
            self.complain("tags", "%r is not used" % tag)

    def responses(self, where, operation):
        for status, answer in operation.get("responses", {}).items():
            answer = self.follow(answer)
            if not re.fullmatch(r"[1-5](\d\d|XX)|default", str(status)) or not isinstance(status, str):
                self.complain(where, "status %r" % status)
            if not answer.get("description"):
                self.complain(where, "response %s has no description" % status)
            for kind, media in answer.get("content", {}).items():
                if "schema" not in media:
                    self.complain(where, "response %s, %s: no schema" % (status, kind))
                if (kind == "application/x-ndjson") != bool(media.get("x-stream")):
                    self.complain(where, "response %s, %s: x-stream" % (status, kind))
        if not any(str(status).startswith("2") for status in operation.get("responses", {})):
            self.complain(where, "no response that says it worked")
        for status, codes in operation.get("x-error-codes", {}).items():
            if not re.fullmatch(r"[45]\d\d", str(status)) or not codes:
                self.complain(where, "x-error-codes of %r" % status)
            answers = operation.get("responses", {})
            if str(status) not in answers and str(status)[0] + "XX" not in answers:
                self.complain(where, "x-error-codes of %s, which is no response" % status)

    # 2

    def references(self, node, where="#"):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                try:
                    self.resolver.resolve(node["$ref"])
                except jsonschema.exceptions.RefResolutionError:
                    self.complain(where, "%s does not resolve" % node["$ref"])
            for name, child in node.items():
                self.references(child, "%s/%s" % (where, name))
        elif isinstance(node, list):
            for i, child in enumerate(node):
                self.references(child, "%s/%d" % (where, i))

    def unused(self):
        text = set(re.findall(r"#/components/[\w/-]+", str(self.document)))
        for kind, members in self.document.get("components", {}).items():
            for name in members if kind != "securitySchemes" else []:
                if "#/components/%s/%s" % (kind, name) not in text:
                    self.complain("components/%s/%s" % (kind, name), "is not used")

    def schemas(self, node, where="#"):
        """Every `schema` member and every component."""
        if isinstance(node, dict):
            for name, child in node.items():
                here = "%s/%s" % (where, name)
                if isinstance(child, dict) and (name == "schema" or where == "#/components/schemas"):
                    try:
                        jsonschema.Draft202012Validator.check_schema(child)
                    except jsonschema.exceptions.SchemaError as error:
                        self.complain(here, error.message)
                if name not in ("examples", "example", "value"):
                    self.schemas(child, here)
        elif isinstance(node, list):
            for i, child in enumerate(node):
                self.schemas(child, "%s/%d" % (where, i))

    # 3

    def examples(self, node, where="#"):
        if isinstance(node, dict):
            schema = node.get("schema")
            if isinstance(schema, dict):
                given = [(name, example.get("value")) for name, example in (node.get("examples") or {}).items()]
                if "example" in node:
                    given.append(("example", node["example"]))
                validator = jsonschema.Draft202012Validator(schema, resolver=self.resolver)
                for name, value in given:
                    for error in validator.iter_errors(value):
                        self.complain("%s/%s" % (where, name), error.message)
            for name, child in node.items():
                self.examples(child, "%s/%s" % (where, name))
        elif isinstance(node, list):
            for i, child in enumerate(node):
                self.examples(child, "%s/%d" % (where, i))

    # 4

    def parameters(self):
        for path, method, item, operation in self.operations():
            where = "%s %s" % (method.upper(), path)
            given = [self.follow(p) for p in item.get("parameters", []) + operation.get("parameters", [])]
            names = [(p.get("in"), p.get("name")) for p in given]
            if len(names) != len(set(names)):
                self.complain(where, "a parameter twice")
            for p in given:
                if p.get("in") not in ("path", "query", "header") or "schema" not in p or not p.get("description"):
                    self.complain(where, "parameter %s lacks in, schema or description" % p.get("name"))
                if p.get("in") == "path" and p.get("required") is not True:
                    self.complain(where, "path parameter %s is not required" % p["name"])
            wanted = set(re.findall(r"\{(\w+)\}", path))
            declared = {name for place, name in names if place == "path"}
            for name in wanted ^ declared:
                self.complain(where, "path parameter %s: in the template or declared, not both" % name)

    # 5

    def codes(self):
        mine = set()
        groups = [self.document.get("x-error-codes", {})]
        for _, _, _, operation in self.operations():
            groups.append(operation.get("x-error-codes", {}))
            mine.update(operation.get("x-line-codes", []))
        for group in groups:
            for codes in group.values():
                mine.update(codes)
        return mine

    def sources(self):
        for folder in ("include/cheetah", "src/service", "src/http", "src/http/calls", "src/lm", "src/reduce"):
            base = os.path.join(self.root, folder)
            for name in sorted(os.listdir(base)) if os.path.isdir(base) else []:
                if name.endswith((".c", ".h")):
                    with open(os.path.join(base, name), encoding="utf-8") as file:
                        yield folder + "/" + name, file.read()

    def error_codes(self):
        mine, texts = self.codes(), dict(self.sources())
        rows = re.findall(r'X\(\w+,\s*\d+,\s*(\d+),\s*"(\w+)"', texts["include/cheetah/err.h"])
        slugs = {slug: status for status, slug in rows}
        everything = "\n".join(texts.values())
        for code in sorted(mine):
            if '"%s"' % code not in everything:
                self.complain("x-error-codes", "%s is not in the code" % code)
        for slug in sorted(set(slugs) - mine - INTERNAL):
            self.complain("x-error-codes", "%s of err.h is missing" % slug)
        for name, text in texts.items():
            if name.startswith("src/http/"):
                # a problem is made with its status, then its slug
                for slug in re.findall(r'\b[45]\d\d,\s*"([a-z_]+)"', text):
                    if slug not in mine:
                        self.complain("x-error-codes", "%s of %s is missing" % (slug, name))
        for groups in [self.document.get("x-error-codes", {})] + [o.get("x-error-codes", {}) for _, _, _, o in self.operations()]:
            for status, codes in groups.items():
                for code in codes:
                    if code in slugs and slugs[code] != str(status):
                        self.complain("x-error-codes", "%s is listed with %s, err.h says %s" % (code, status, slugs[code]))

    # 6

    def members(self, node, where="#", data=False):
        """data: inside the value of an example, where null is a value like any other."""
        if isinstance(node, list):
            for i, child in enumerate(node):
                self.members(child, "%s/%d" % (where, i), data)
        if not isinstance(node, dict):
            return
        for name, child in node.items():
            here = "%s/%s" % (where, name)
            blank = isinstance(name, str) and " " in name and not where.endswith("/examples")
            if blank or child is None and not data:
                self.complain(here, "is no member: is there a comma in an unquoted text?")
            example = name == "example" or name == "value" and re.search(r"/examples/[^/]+$", where)
            self.members(child, here, data or bool(example))

    # 7

    def routes(self):
        with open(os.path.join(self.root, "src", "http", "routes.c"), encoding="utf-8") as file:
            text = file.read()
        rows = re.findall(r"\{\s*\.method = HTTP_METHOD_(\w+),.*?\.label = \"([^\"]+)\".*?\.right = SVC_RIGHT_(\w+)", text, re.S)
        if len(rows) != text.count(".method = "):
            self.complain("src/http/routes.c", "%d of %d rows can be read" % (len(rows), text.count(".method = ")))
        rights = {(method, label): right.lower() for method, label, right in rows}
        rows = set(rights)
        for path, method, _, operation in self.operations():
            # most modes and aggregates have paths of their own here and one route there
            alone = (method.upper(), path) in rights
            label = "/reduce/{mode}/{prefix}" if path.startswith("/reduce/") and not alone else path
            fits = {(m, l) for m, l in rows if m == method.upper() and shape(l) == shape(label)}
            if not fits:
                self.complain("%s %s" % (method.upper(), path), "is no route")
            if fits and {operation.get("x-right")} != {rights[row] for row in fits}:
                self.complain("%s %s" % (method.upper(), path), "x-right is not that of src/http/routes.c")
            self.described.update(fits)
        for method, label in sorted(rows - self.described):
            self.complain("%s %s" % (method, label), "is a route and not described")

    def run(self):
        self.references(self.document)
        if self.complaints:
            return self.complaints
        for check in (self.structure, self.parameters, self.unused, self.error_codes, self.routes):
            check()
        self.members(self.document)
        self.schemas(self.document)
        self.examples(self.document)
        return self.complaints


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    complaints = Linter(root).run()
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
