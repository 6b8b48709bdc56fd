{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: sluice
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/component: operator
{{- end }}

{{- define "sluice.image" -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end }}

{{- /* The file of settings that the operator reads; its keys are those of operator/src/settings.rs. */}}
{{- define "sluice.settings" -}}
tenantNamespaces: {{ .Values.tenantNamespaces | default (list .Release.Namespace) | toJson }}
reviewAllNamespaces: {{ .Values.reviewAllNamespaces }}
allowLocalAddresses: {{ .Values.allowLocalAddresses }}
logLevel: {{ .Values.logLevel }}
{{- with .Values.agent }}
agent:
  image: {{ include "sluice.image" (dict "image" .image "version" $.Chart.AppVersion) | quote }}
  imagePullPolicy: {{ .image.pullPolicy }}
  imagePullSecrets: {{ .imagePullSecrets | toJson }}
  resources: {{ .resources | toJson }}
  tolerations: {{ .tolerations | toJson }}
  nodeSelector: {{ .nodeSelector | toJson }}
  {{- with .affinity }}
  affinity: {{ . | toJson }}
  {{- end }}
  {{- with .priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  podAnnotations: {{ .podAnnotations | toJson }}
  podLabels: {{ .podLabels | toJson }}
  hostPaths: {{ .hostPaths }}
  paths: {{ .paths | toJson }}
  {{- with .seLinuxOptions }}
  seLinuxOptions: {{ . | toJson }}
  {{- end }}
  env: {{ .env | toJson }}
{{- end }}
{{- end }}

{{/* Named by its content: the operator reads its settings once, and a kubelet may give a new pod of the same node what it knew of the old name. */}}
{{- define "sluice.settingsName" -}}
sluice-settings-{{ include "sluice.settings" . | sha256sum | trunc 10 }}
{{- end }}
