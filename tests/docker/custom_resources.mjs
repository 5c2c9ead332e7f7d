// Checks manifests on standard input (JSON) against the schemas of KEDA and the Prometheus operator.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const operator = "prometheus-operator/monitoring.coreos.com/v1";
const places = { ScaledObject: "keda/keda.sh/v1alpha1", PodMonitor: operator, PrometheusRule: operator };
for (const one of JSON.parse(readFileSync(0, "utf8"))) {
  const file = `${process.argv[2]}/node_modules/@kubernetes-models/${places[one.kind]}/index.js`;
  const kinds = await import(pathToFileURL(file));
  new kinds[one.kind](one).validate();
}
