//! One connection's work, whose bytes are written when it has come to rest.
//!
//! Contract: the parts of a connection are polled until none has anything to do ([`quiet_then`]), and
//! only then are bytes written: a write for each frame wakes the other side for each, which costs a call
//! more than all the rest of it. Nothing is held back beyond the poll. A [`Part`] is polled only when
//! there is something for it to do.

use crate::link::Stream;
use crate::protocol::quiet::quiet_then;
use futures_util::task::AtomicWaker;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes are gathered before they are written at once.
const GATHERED_MAX: usize = 64 << 10;

/// A stream whose writes are gathered until its connection has come to rest.
#[derive(Clone)]
pub struct Gathering(Arc<Mutex<Gathered>>);

struct Gathered {
    stream: Stream,
    out: Vec<u8>,
    written: usize,
    /// Who has more to write than is gathered.
    waiting: Option<Waker>,
}

impl Gathering {
    fn new(stream: Stream) -> Self {
        Gathering(Arc::new(Mutex::new(Gathered { stream, out: Vec::new(), written: 0, waiting: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    /// Writes all that was gathered.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            match std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Ok(n) => self.written += n,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.out.clear();
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl Gathered {
    /// The same, for a writer that goes on when it is done. The stream itself knows of one writer only,
    /// which is whoever writes what was gathered when the connection comes to rest.
    fn poll_out_for(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = self.poll_out(cx);
        self.waiting = polled.is_pending().then(|| cx.waker().clone());
        polled
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut gathered = self.inner();
        if gathered.out.len() >= GATHERED_MAX {
            std::task::ready!(gathered.poll_out_for(cx))?;
        }
        gathered.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // Flushed when this poll ends; an error comes back with the next read or write.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut gathered = self.inner();
        std::task::ready!(gathered.poll_out_for(cx))?;
        Pin::new(&mut gathered.stream).poll_shutdown(cx)
    }
}

/// The streams that one connection's work writes to; it grows as connections are opened.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Vec<Gathering>>>);

impl Streams {
    /// This stream, to be written to when there is nothing else to do.
    pub fn gather(&self, stream: Stream) -> Gathering {
        let stream = Gathering::new(stream);
        self.lock().push(stream.clone());
        stream
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Gathering>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_out(&self, cx: &mut Context<'_>) {
        for stream in self.lock().iter() {
            let mut gathered = stream.inner();
            // A stream that failed says so to whoever reads from it.
            if gathered.poll_out(cx).is_ready()
                && let Some(waiting) = gathered.waiting.take()
            {
                waiting.wake();
            }
        }
    }
}

/// Works, and writes to the streams whenever the work has come to rest.
pub fn settled<F: Future>(work: F, streams: Streams) -> impl Future<Output = F::Output> {
    quiet_then(work, move |cx: &mut Context<'_>| streams.poll_out(cx))
}

/// A part of a connection's work: polled when it was woken, and left alone when another part was.
pub struct Part {
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken {
    since: AtomicBool,
    whole: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.since.store(true, Ordering::SeqCst);
        self.whole.wake();
    }
}

impl Default for Part {
    /// A part that has not been polled yet.
    fn default() -> Self {
        let woken = Arc::new(Woken { since: AtomicBool::new(true), whole: AtomicWaker::new() });
        Part { waker: Waker::from(woken.clone()), woken }
    }
}

impl Part {
    /// Polls the part, if it was woken since the last time.
    pub fn poll<T>(&self, cx: &Context<'_>, work: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.woken.whole.register(cx.waker());
        match self.woken.since.swap(false, Ordering::SeqCst) {
            true => work(&mut Context::from_waker(&self.waker)),
            false => Poll::Pending,
        }
    }

    /// Says that there is something to do for it.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;
    use std::sync::atomic::AtomicUsize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts how often the runtime would be told.
    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_written_in_turns_leaves_at_once_and_nobody_is_woken() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let streams = Streams::default();
        let mut writer = streams.gather(Box::new(ours));
        let work = async move {
            for _ in 0..3 {
                writer.write_all(b"frame").await.unwrap();
                writer.flush().await.unwrap();
                // Wakes itself, as one part of a connection wakes another.
                let mut yielded = false;
                std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            std::future::pending::<()>().await
        };
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut settled = std::pin::pin!(settled(work, streams));
        assert!(settled.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        let mut all = [0; 15];
        let read = std::pin::pin!(theirs.read_exact(&mut all)).poll(&mut Context::from_waker(&noop_waker()));
        assert!(matches!(read, Poll::Ready(Ok(15))));
    }
    #[test]
    fn a_part_is_polled_when_it_was_woken_and_wakes_the_whole() {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let cx = Context::from_waker(&waker);
        let part = Part::default();
        let mut inner = None;
        let mut polls = 0;
        let mut poll = |inner: &mut Option<Waker>| {
            let polled = part.poll(&cx, |within| {
                polls += 1;
                *inner = Some(within.waker().clone());
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
            polls
        };
        assert_eq!([poll(&mut inner), poll(&mut inner)], [1, 1]);
        inner.clone().unwrap().wake();
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert_eq!([poll(&mut inner), poll(&mut inner)], [2, 2]);
    }
    #[tokio::test]
    async fn a_part_with_much_to_write_goes_on_when_there_is_room_again() {
        const MUCH: usize = 8 * GATHERED_MAX;
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let streams = Streams::default();
        let mut writer = streams.gather(Box::new(ours));
        let (part, mut left) = (Part::default(), MUCH);
        let work = std::future::poll_fn(move |cx| {
            part.poll(cx, |cx| {
                while left > 0 {
                    let some = [7; 1000];
                    let some = some.get(..left.min(1000)).unwrap();
                    left -= std::task::ready!(Pin::new(&mut writer).poll_write(cx, some)).unwrap();
                }
                Poll::<()>::Pending
            })
        });
        let mut all = vec![0; MUCH];
        let read = async {
            tokio::select! {
                () = settled(work, streams) => {}
                read = theirs.read_exact(&mut all) => assert_eq!(read.unwrap(), MUCH),
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), read).await.expect("hangs");
    }
}
