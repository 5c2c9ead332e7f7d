"""Networks of COVID-MTL."""
