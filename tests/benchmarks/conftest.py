"What all benchmarks share: they run when asked for by name, and never by the way"
import pytest


@pytest.fixture(autouse=True)
def only_when_asked(request):
    if "benchmark" not in (request.config.option.markexpr or ""): pytest.skip("a benchmark: run it with -m benchmark")
