// contract: /openapi.yaml of the server, as the forms need it.
import { load } from "js-yaml";
import { call } from "./api";
import type { Right } from "./state";

type Node = { [key: string]: any };

export interface Parameter {
  name: string;
  in: "path" | "query";
  required: boolean;
  description: string;
  choices: string[];
  example: string;
}

export interface Body {
  type: string;
  required: boolean;
  binary: boolean;
  examples: { name: string; text: string }[];
}

export interface Operation {
  id: string;
  method: string;
  path: string;
  tag: string;
  summary: string;
  description: string;
  right: Right | "open";
  parameters: Parameter[];
  bodies: Body[];
  answers: string[];
}

export interface Contract {
  operations: Operation[];
  find: (id: string) => Operation | undefined;
}

const METHODS = ["get", "post", "put", "delete"];

function follow(root: Node, node: any): any {
  for (let i = 0; i < 20 && node && node.$ref; i++)
    node = String(node.$ref)
      .slice(2)
      .split("/")
      .reduce((at: any, part) => at?.[part.replace(/~1/g, "/").replace(/~0/g, "~")], root);
  return node ?? {};
}

function parameter(root: Node, raw: any): Parameter {
  const p = follow(root, raw);
  const schema = follow(root, p.schema);
  const example = p.example ?? follow(root, Object.values(p.examples ?? {})[0]).value ?? "";
  const choices = schema.enum ?? (schema.type === "boolean" ? ["true", "false"] : []);
  return { name: p.name, in: p.in, required: Boolean(p.required), description: String(p.description ?? "").trim(), choices: choices.map(String), example: String(example) };
}

function bodies(root: Node, raw: any): Body[] {
  const body = follow(root, raw);
  return Object.entries(body.content ?? {}).map(([type, media]: [string, any]) => {
    const lines = type.includes("ndjson");
    const examples = Object.entries(media.examples ?? {}).map(([name, example]) => {
      const value = follow(root, example).value;
      return { name, text: typeof value === "string" ? value : JSON.stringify(value, null, lines ? 0 : 1) + (lines ? "\n" : "") };
    });
    if (media.example !== undefined && !examples.length) examples.push({ name: "example", text: typeof media.example === "string" ? media.example : JSON.stringify(media.example) });
    return { type, required: Boolean(body.required), binary: follow(root, media.schema).format === "binary", examples };
  });
}

export function understand(root: Node): Contract {
  const operations: Operation[] = [];
  for (const [path, item] of Object.entries<Node>(root.paths)) {
    for (const method of METHODS) {
      const op = item[method];
      if (!op) continue;
      const answers = new Set<string>();
      for (const [status, answer] of Object.entries<any>(op.responses)) if (/^2/.test(status)) for (const type of Object.keys(follow(root, answer).content ?? {})) answers.add(type);
      operations.push({
        id: op.operationId,
        method: method.toUpperCase(),
        path,
        tag: op.tags?.[0] ?? "other",
        summary: op.summary ?? "",
        description: String(op.description ?? "").trim(),
        right: op["x-right"] ?? "read",
        parameters: [...(item.parameters ?? []), ...(op.parameters ?? [])].map((raw) => parameter(root, raw)).filter((p) => p.in === "path" || p.in === "query"),
        bodies: op.requestBody ? bodies(root, op.requestBody) : [],
        answers: [...answers],
      });
    }
  }
  return { operations, find: (id) => operations.find((op) => op.id === id) };
}

export async function fetchContract(): Promise<Contract> {
  const answer = await call("GET", "/openapi.yaml");
  return understand(load(await answer.text()) as Node);
}
