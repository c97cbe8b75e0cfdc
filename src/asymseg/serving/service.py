"""What the server does for one request: from the body to the answer, on the right threads and in time."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from asymseg.data.pixels import Pixels
from asymseg.errors import ConfigError, DataError
from asymseg.prediction.encoding import mask_file, overlay_file, shares_file
from asymseg.prediction.shortage import ran_out
from asymseg.serving.answering import KINDS, as_json, check_wanted, of_pixel
from asymseg.serving.kept import Kept
from asymseg.serving.metrics import Metrics
from asymseg.serving.models import Models
from asymseg.serving.refusals import Refusal
from asymseg.serving.room import Limits, Place, Room, busy
from asymseg.serving.schemas import PixelPlace, Wanted
from asymseg.serving.uploads import count_pixels, decode, image_bytes, read_body
from asymseg.serving.worker import Worker

Done = TypeVar("Done")

_THREADS = 2
"""That decode, and as many that encode."""
_LEFT = 499
"""The status of an answer that nobody waits for, in the metrics alone."""


class Service:
    """Predictions, within limits.

    Raises AsymsegError where a model cannot be loaded.
    """

    def __init__(self, sources: dict[str, str], device: str, limits: Limits) -> None:
        self.limits, self.metrics, self.room, self.kept = limits, Metrics(), Room(limits), Kept()
        self.decoding = 0
        self.models = Models(sources, device, batch=limits.batch, coming=lambda: self.decoding, metrics=self.metrics)
        self._decoders = ThreadPoolExecutor(_THREADS, "decode")
        self._encoders = ThreadPoolExecutor(_THREADS, "encode")
        self._large = asyncio.Semaphore(_THREADS)
        """For what is many times as large as its image."""
        self._show_numbers()

    async def predict(self, request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """What a model says about an image. The image decides by its content what it is: JPEG, PNG, WebP, BMP, TIFF or
        a NumPy array H W C in a .npy file; it comes as the body itself, as a form's file `image`, or in base64 as JSON.
        """
        worker = self.models.pick(wanted.model)
        with self.room.place() as place:
            try:
                body = await self._body(request, place)
            except ClientDisconnect:
                return self._gone()
            place.enter()
            return await self._unless_left(request, self._answer(worker, request, body, wanted, place))

    async def pixel(self, request: Request, name: str, place: Annotated[PixelPlace, Query()]) -> Response:
        """What a model says about one pixel of a kept prediction, and what of the image the pixel drew on."""
        with self.room.place() as room:
            room.enter()
            entry = self.kept.get(name)
            work = asyncio.wrap_future(entry.worker.do(partial(of_pixel, entry.result, place.row, place.column)))
            response = await self._unless_left(request, self._pixel(work))
        self.kept.tidy()  # attention is large
        return response

    async def close(self) -> None:
        """Finish what was taken, and end."""
        await asyncio.to_thread(self.models.close)
        for pool in (self._decoders, self._encoders):
            pool.shutdown()

    def _show_numbers(self) -> None:
        watch = self.metrics.watch
        watch("asymseg_requests_in_work", "Requests for predictions taken on.", lambda: self.room.requests)
        watch("asymseg_kept_results", "Results kept for questions.", lambda: len(self.kept))
        watch("asymseg_kept_bytes", "Their memory.", lambda: self.kept.bytes)
        for name, worker in self.models.workers.items():
            self.metrics.waiting.labels(name).set_function(worker.__len__)

    async def _body(self, request: Request, place: Place) -> bytes:
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await read_body(request, self.limits.max_bytes, place)
        except MemoryError:
            raise Refusal(413, "too_large", "there is no memory for the body; send a smaller image") from None
        except TimeoutError:
            raise Refusal(
                408, "slow", f"the body did not arrive within {self.limits.timeout:g} seconds; send a smaller image"
            ) from None

    async def _answer(self, worker: Worker, request: Request, body: bytes, wanted: Wanted, place: Place) -> Response:
        began = time.perf_counter()
        async with _in_time(self.limits.timeout, self.room):
            image = await self._image(worker, request, body, wanted, place)
            result, model = await asyncio.wrap_future(worker.look(image))
            seconds = time.perf_counter() - began
            if wanted.output == "json":
                name = self.kept.add(result, worker, model) if wanted.keep else None
                try:
                    content = await self._in(self._encoders, as_json, result, model, wanted, name, seconds)
                except BaseException:  # nobody learns the name
                    self.kept.forget(name)
                    raise
            elif wanted.output == "probabilities":
                async with self._large:
                    shares = await asyncio.wrap_future(worker.do(lambda: result.probabilities))
                    content = await self._in(self._encoders, shares_file, shares, result.classes)
            elif wanted.output == "overlay":
                content = await self._in(self._encoders, overlay_file, result, wanted.opacity)
            else:
                content = await self._in(self._encoders, mask_file, result)
            return Response(content, media_type=KINDS[wanted.output])

    async def _image(self, worker: Worker, request: Request, body: bytes, wanted: Wanted, place: Place) -> Pixels:
        """The image of a body, once its head and the parameters promise that it can be answered."""
        info = worker.model.predictor.info
        self.decoding += 1
        try:
            data = await self._in(self._decoders, image_bytes, request.headers, body)
            pixels = await self._in(self._decoders, count_pixels, data, self.limits.max_pixels)
            place.take_pixels(pixels)
            check_wanted(wanted, info.classes, pixels)
            return await self._in(self._decoders, decode, data, len(info.mean))
        finally:
            self.decoding -= 1

    async def _pixel(self, work: "asyncio.Future[dict[str, Any]]") -> Response:
        async with _in_time(self.limits.timeout, self.room):
            return JSONResponse(await work)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[..., Done], *arguments: Any) -> Done:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    def _gone(self) -> Response:
        self.metrics.left.inc()
        return Response(status_code=_LEFT)

    async def _unless_left(self, request: Request, work: Coroutine[Any, Any, Response]) -> Response:
        """The answer; where the client leaves, the work is dropped wherever it stands."""
        working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            return self._gone()
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)


@asynccontextmanager
async def _in_time(seconds: float, room: Room) -> AsyncIterator[None]:
    """Raises Refusal where the block takes longer, and for what it raises itself that whoever asks can mend."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except DataError as error:
        raise Refusal(400, "bad_image", str(error)) from None
    except ConfigError as error:  # an image that does not fit into memory, a file that gives class maps alone
        raise Refusal(422, "cannot", str(error)) from None
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        logging.getLogger("asymseg").warning("memory ran out: %s", " ".join(str(error).split())[:200])
        if room.requests > 1:
            raise busy("other requests fill the memory") from None
        raise Refusal(413, "too_large", "there is no memory for that; send a smaller image, or ask for less") from None
    except TimeoutError:
        raise Refusal(504, "timeout", f"no answer within {seconds:g} seconds; try a smaller image, or later") from None


async def _left(request: Request) -> None:
    """Ends when the client does."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
