{{- define "portcullis.selector" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Seconds of a duration of the configuration, rounded up. */}}
{{- define "portcullis.seconds" -}}
{{- $duration := toString . }}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h)$" $duration) }}
{{- fail (printf "shutdown: %s is not in milliseconds, seconds, minutes or hours, such as 25s" $duration) }}
{{- end }}
{{- $number := regexFind "^[0-9]+" $duration | atoi }}
{{- if hasSuffix "ms" $duration -}}
{{ div (add $number 999) 1000 }}
{{- else if hasSuffix "s" $duration -}}
{{ $number }}
{{- else if hasSuffix "m" $duration -}}
{{ mul $number 60 }}
{{- else -}}
{{ mul $number 3600 }}
{{- end }}
{{- end }}

{{- /* Longer than the gateway takes for its drain. */}}
{{- define "portcullis.terminationGracePeriodSeconds" -}}
{{- $config := fromYaml .Values.config }}
{{- if hasKey $config "Error" }}{{ fail (printf "config: %s" $config.Error) }}{{ end }}
{{- $shutdown := $config.shutdown | default dict }}
{{- $delay := include "portcullis.seconds" ($shutdown.delay | default "0s") | int }}
{{- $grace := include "portcullis.seconds" ($shutdown.grace | default "25s") | int }}
{{- add $delay $grace 10 }}
{{- end }}
