"""What an SRE sees and is paged by: a generated Grafana dashboard, recording rules, alerts."""
