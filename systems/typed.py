"""The clients as type checkers see them: options and result of each system by its name.

At run time these are the clients of `hilum.client`, which know no system. A misspelt system, option
or field of a result is an error in pyright and mypy. A system of another package has no name here:
give its object, ``client.run(SYSTEM, study)``, whose options and result are known just so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from hilum.client import async_client, client, client_pool

if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    from hilum.client.protocols import Found, Options, Outcome, System

    from .covid_mtl.options import Keywords as CovidMtlKeywords
    from .covid_mtl.options import Options as CovidMtlOptions
    from .covid_mtl.result import CovidMtlResult
    from .ct_angel.options import Keywords as CtAngelKeywords
    from .ct_angel.options import Options as CtAngelOptions
    from .ct_angel.result import CtAngelResult
    from .ct_classifier.options import Keywords as CtClassifierKeywords
    from .ct_classifier.options import Options as CtClassifierOptions
    from .ct_classifier.result import CtClassifierResult
    from .cxr_severity.options import Keywords as CxrKeywords
    from .cxr_severity.options import Options as CxrOptions
    from .cxr_severity.result import CxrResult
    from .dlpe.options import Keywords as DlpeKeywords
    from .dlpe.options import Options as DlpeOptions
    from .dlpe.result import DlpeResult
    from .lungmask.options import Keywords as LungmaskKeywords
    from .lungmask.options import Options as LungmaskOptions
    from .lungmask.result import LungmaskResult

    T = TypeVar("T", default=Outcome[Any])
    CxrDone = TypeVar("CxrDone", default=Outcome[CxrResult])
    DlpeDone = TypeVar("DlpeDone", default=Outcome[DlpeResult])
    CovidMtlDone = TypeVar("CovidMtlDone", default=Outcome[CovidMtlResult])
    CtAngelDone = TypeVar("CtAngelDone", default=Outcome[CtAngelResult])
    CtClassifierDone = TypeVar("CtClassifierDone", default=Outcome[CtClassifierResult])
    LungmaskDone = TypeVar("LungmaskDone", default=Outcome[LungmaskResult])

    # fmt: off

    class _Runs:
        @overload
        def run(
            self, system: Literal["cxr-severity"], study: Any, *,
            options: CxrOptions | None = None, **given: Unpack[CxrKeywords],
        ) -> CxrResult: ...
        @overload
        def run(
            self, system: Literal["dlpe"], study: Any, *,
            options: DlpeOptions | None = None, **given: Unpack[DlpeKeywords],
        ) -> DlpeResult: ...
        @overload
        def run(
            self, system: Literal["covid-mtl"], study: Any, *,
            options: CovidMtlOptions | None = None, **given: Unpack[CovidMtlKeywords],
        ) -> CovidMtlResult: ...
        @overload
        def run(
            self, system: Literal["ct-angel"], study: Any, *,
            options: CtAngelOptions | None = None, **given: Unpack[CtAngelKeywords],
        ) -> CtAngelResult: ...
        @overload
        def run(
            self, system: Literal["ct-classifier"], study: Any, *,
            options: CtClassifierOptions | None = None, **given: Unpack[CtClassifierKeywords],
        ) -> CtClassifierResult: ...
        @overload
        def run(
            self, system: Literal["lungmask"], study: Any, *,
            options: LungmaskOptions | None = None, **given: Unpack[LungmaskKeywords],
        ) -> LungmaskResult: ...
        @overload
        def run(
            self, system: System[Options, Found], study: Any, *,
            options: Options | None = None, **given: Any,
        ) -> Found: ...
        def run(self, *args: Any, **given: Any) -> Any: ...

        @overload
        def run_many(
            self, system: Literal["cxr-severity"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CxrResult]], CxrDone] | None = None,
            options: CxrOptions | None = None, **given: Unpack[CxrKeywords],
        ) -> Generator[CxrDone, None, None]: ...
        @overload
        def run_many(
            self, system: Literal["dlpe"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[DlpeResult]], DlpeDone] | None = None,
            options: DlpeOptions | None = None, **given: Unpack[DlpeKeywords],
        ) -> Generator[DlpeDone, None, None]: ...
        @overload
        def run_many(
            self, system: Literal["covid-mtl"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CovidMtlResult]], CovidMtlDone] | None = None,
            options: CovidMtlOptions | None = None, **given: Unpack[CovidMtlKeywords],
        ) -> Generator[CovidMtlDone, None, None]: ...
        @overload
        def run_many(
            self, system: Literal["ct-angel"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CtAngelResult]], CtAngelDone] | None = None,
            options: CtAngelOptions | None = None, **given: Unpack[CtAngelKeywords],
        ) -> Generator[CtAngelDone, None, None]: ...
        @overload
        def run_many(
            self, system: Literal["ct-classifier"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CtClassifierResult]], CtClassifierDone] | None = None,
            options: CtClassifierOptions | None = None, **given: Unpack[CtClassifierKeywords],
        ) -> Generator[CtClassifierDone, None, None]: ...
        @overload
        def run_many(
            self, system: Literal["lungmask"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[LungmaskResult]], LungmaskDone] | None = None,
            options: LungmaskOptions | None = None, **given: Unpack[LungmaskKeywords],
        ) -> Generator[LungmaskDone, None, None]: ...
        @overload
        def run_many(
            self, system: System[Options, Found], studies: Iterable[Any], *,
            in_flight: int | None = None, finish: None = None,
            options: Options | None = None, **given: Any,
        ) -> Generator[Outcome[Found], None, None]: ...
        @overload
        def run_many(
            self, system: System[Options, Found], studies: Iterable[Any], *,
            in_flight: int | None = None, finish: Callable[[Outcome[Found]], T],
            options: Options | None = None, **given: Any,
        ) -> Generator[T, None, None]: ...
        def run_many(self, *args: Any, **given: Any) -> Any: ...

    class _RunsAsync:
        @overload
        async def run(
            self, system: Literal["cxr-severity"], study: Any, *,
            options: CxrOptions | None = None, **given: Unpack[CxrKeywords],
        ) -> CxrResult: ...
        @overload
        async def run(
            self, system: Literal["dlpe"], study: Any, *,
            options: DlpeOptions | None = None, **given: Unpack[DlpeKeywords],
        ) -> DlpeResult: ...
        @overload
        async def run(
            self, system: Literal["covid-mtl"], study: Any, *,
            options: CovidMtlOptions | None = None, **given: Unpack[CovidMtlKeywords],
        ) -> CovidMtlResult: ...
        @overload
        async def run(
            self, system: Literal["ct-angel"], study: Any, *,
            options: CtAngelOptions | None = None, **given: Unpack[CtAngelKeywords],
        ) -> CtAngelResult: ...
        @overload
        async def run(
            self, system: Literal["ct-classifier"], study: Any, *,
            options: CtClassifierOptions | None = None, **given: Unpack[CtClassifierKeywords],
        ) -> CtClassifierResult: ...
        @overload
        async def run(
            self, system: Literal["lungmask"], study: Any, *,
            options: LungmaskOptions | None = None, **given: Unpack[LungmaskKeywords],
        ) -> LungmaskResult: ...
        @overload
        async def run(
            self, system: System[Options, Found], study: Any, *,
            options: Options | None = None, **given: Any,
        ) -> Found: ...
        async def run(self, *args: Any, **given: Any) -> Any: ...

        @overload
        def run_many(
            self, system: Literal["cxr-severity"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CxrResult]], CxrDone] | None = None,
            options: CxrOptions | None = None, **given: Unpack[CxrKeywords],
        ) -> AsyncIterator[CxrDone]: ...
        @overload
        def run_many(
            self, system: Literal["dlpe"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[DlpeResult]], DlpeDone] | None = None,
            options: DlpeOptions | None = None, **given: Unpack[DlpeKeywords],
        ) -> AsyncIterator[DlpeDone]: ...
        @overload
        def run_many(
            self, system: Literal["covid-mtl"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CovidMtlResult]], CovidMtlDone] | None = None,
            options: CovidMtlOptions | None = None, **given: Unpack[CovidMtlKeywords],
        ) -> AsyncIterator[CovidMtlDone]: ...
        @overload
        def run_many(
            self, system: Literal["ct-angel"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CtAngelResult]], CtAngelDone] | None = None,
            options: CtAngelOptions | None = None, **given: Unpack[CtAngelKeywords],
        ) -> AsyncIterator[CtAngelDone]: ...
        @overload
        def run_many(
            self, system: Literal["ct-classifier"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[CtClassifierResult]], CtClassifierDone] | None = None,
            options: CtClassifierOptions | None = None, **given: Unpack[CtClassifierKeywords],
        ) -> AsyncIterator[CtClassifierDone]: ...
        @overload
        def run_many(
            self, system: Literal["lungmask"], studies: Iterable[Any], *,
            in_flight: int | None = None,
            finish: Callable[[Outcome[LungmaskResult]], LungmaskDone] | None = None,
            options: LungmaskOptions | None = None, **given: Unpack[LungmaskKeywords],
        ) -> AsyncIterator[LungmaskDone]: ...
        @overload
        def run_many(
            self, system: System[Options, Found], studies: Iterable[Any], *,
            in_flight: int | None = None, finish: None = None,
            options: Options | None = None, **given: Any,
        ) -> AsyncIterator[Outcome[Found]]: ...
        @overload
        def run_many(
            self, system: System[Options, Found], studies: Iterable[Any], *,
            in_flight: int | None = None, finish: Callable[[Outcome[Found]], T],
            options: Options | None = None, **given: Any,
        ) -> AsyncIterator[T]: ...
        def run_many(self, *args: Any, **given: Any) -> Any: ...

    # fmt: on
else:

    class _Runs:
        pass

    class _RunsAsync:
        pass


class Client(_Runs, client.Client):
    """`hilum.client.Client`, typed by system."""


class ClientPool(_Runs, client_pool.ClientPool):
    """`hilum.client.ClientPool`, typed by system."""


class AsyncClient(_RunsAsync, async_client.AsyncClient):
    """`hilum.client.AsyncClient`, typed by system."""
