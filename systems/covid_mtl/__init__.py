"""Diagnosis and severity of COVID-19 on chest CT, COVID-MTL."""
