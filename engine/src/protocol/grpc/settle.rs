//! One connection's work, done to its end before the runtime gets it back.
//!
//! Contract: what the parts of a connection tell each other within one poll is carried out within
//! that poll, and only then are bytes written: handing a connection to the runtime again for each
//! such word wakes another of its threads, and a write for each frame wakes the other side for
//! each, which costs a call more than all the rest of it. Nothing is held back beyond the poll.

use crate::link::{BoxFuture, Stream};
use futures_util::task::AtomicWaker;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So often the parts may wake each other before other connections get their turn.
const TURNS: usize = 64;
/// So many bytes are gathered before they are written at once.
const GATHERED_MAX: usize = 64 << 10;

/// A stream whose writes are gathered until [`Settled`] has no more to do.
#[derive(Clone)]
pub struct Gathering(Arc<Mutex<Gathered>>);

struct Gathered {
    stream: Stream,
    out: Vec<u8>,
    written: usize,
}

impl Gathering {
    /// Gathers what is written to this stream.
    pub fn new(stream: Stream) -> Self {
        Gathering(Arc::new(Mutex::new(Gathered { stream, out: Vec::new(), written: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
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

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut gathered = self.lock();
        if gathered.out.len() >= GATHERED_MAX {
            std::task::ready!(gathered.poll_out(cx))?;
        }
        gathered.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // Flushed when this poll ends; an error comes back with the next read or write.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut gathered = self.lock();
        std::task::ready!(gathered.poll_out(cx))?;
        Pin::new(&mut gathered.stream).poll_shutdown(cx)
    }
}

/// Who is told that a part has something to do.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    polling: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst) {
            self.outer.wake();
        }
    }
}

/// The work of a connection, and the streams that it writes to.
pub struct Settled<'a, T> {
    work: BoxFuture<'a, T>,
    streams: Arc<Mutex<Vec<Gathering>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<'a, T> Settled<'a, T> {
    /// This work; `streams` grows as connections are opened.
    pub fn new(work: BoxFuture<'a, T>, streams: Arc<Mutex<Vec<Gathering>>>) -> Self {
        let bell = Arc::new(Bell::default());
        Settled { work, streams, waker: Waker::from(bell.clone()), bell }
    }

    /// Works until no part has anything to do, writing in between.
    fn turn(&mut self) -> Poll<T> {
        let mut cx = Context::from_waker(&self.waker);
        for _ in 0..TURNS {
            self.bell.rung.store(false, Ordering::SeqCst);
            let done = self.work.as_mut().poll(&mut cx);
            if done.is_pending() && self.bell.rung.load(Ordering::SeqCst) {
                continue;
            }
            for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                // A stream that failed says so to whoever reads from it.
                let _ = stream.lock().poll_out(&mut cx);
            }
            if done.is_ready() || !self.bell.rung.load(Ordering::SeqCst) {
                return done;
            }
        }
        Poll::Pending
    }
}

impl<T> Future for Settled<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.bell.outer.register(cx.waker());
        self.bell.polling.store(true, Ordering::SeqCst);
        let done = self.turn();
        self.bell.polling.store(false, Ordering::SeqCst);
        // Rung too late to be heard within the turn.
        if done.is_pending() && self.bell.rung.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        done
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
        let stream = Gathering::new(Box::new(ours));
        let mut writer = stream.clone();
        let work = Box::pin(async move {
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
        });
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut settled = Settled::new(work, Arc::new(Mutex::new(vec![stream])));
        assert!(Pin::new(&mut settled).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        let mut all = [0; 15];
        let read = std::pin::pin!(theirs.read_exact(&mut all)).poll(&mut Context::from_waker(&noop_waker()));
        assert!(matches!(read, Poll::Ready(Ok(15))));
    }

    #[test]
    fn work_that_never_settles_lets_others_go_before_it() {
        let work = Box::pin(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut settled = Settled::new(work, Arc::default());
        assert!(Pin::new(&mut settled).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_part_that_is_woken_from_outside_wakes_the_connection() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<u8>();
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut cx = Context::from_waker(&waker);
        let mut settled = Settled::new(Box::pin(async { receiver.await.unwrap() }), Arc::default());
        assert!(Pin::new(&mut settled).poll(&mut cx).is_pending());
        sender.send(7).unwrap();
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert!(matches!(Pin::new(&mut settled).poll(&mut cx), Poll::Ready(7)));
    }
}
