//! `quiet`: a future of several parts that tell each other things.
//!
//! Contract: a part that wakes another while both are being polled costs one more poll at once,
//! instead of a wake-up of the task, for which the runtime may take another thread and move the task
//! there. Wake-ups from outside are passed on. What goes on waking itself is handed back to the
//! runtime after [`ROUNDS`] polls. What is to be done when the parts have come to rest, such as writing
//! what they gathered, is done before the task gets the thread back.

use futures_util::task::AtomicWaker;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls in a row at most.
const ROUNDS: usize = 64;

/// Nothing has happened since the last poll.
const STILL: u8 = 0;
/// It is being polled, and nothing has happened since that began.
const POLLED: u8 = 1;
/// Something has happened.
const RUNG: u8 = 2;

#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::SeqCst) == STILL {
            self.task.wake();
        }
    }
}

/// A future that keeps wake-ups among its parts to itself.
pub struct Quiet<F, R> {
    inner: Pin<Box<F>>,
    bell: Arc<Bell>,
    at_rest: R,
}

/// Keeps the wake-ups among a future's parts from its task.
pub fn quiet<F: Future>(inner: F) -> Quiet<F, impl FnMut(&mut Context<'_>) + Unpin> {
    quiet_then(inner, |_: &mut Context<'_>| {})
}

/// The same; `at_rest` is called when no part has anything left to do, and before anything is handed
/// back. It may wake the parts again through its context.
pub fn quiet_then<F: Future, R: FnMut(&mut Context<'_>) + Unpin>(inner: F, at_rest: R) -> Quiet<F, R> {
    Quiet { inner: Box::pin(inner), bell: Arc::default(), at_rest }
}

impl<F: Future, R: FnMut(&mut Context<'_>) + Unpin> Future for Quiet<F, R> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let bell = self.bell.clone();
        bell.task.register(context.waker());
        let waker = Waker::from(bell.clone());
        let within = &mut Context::from_waker(&waker);
        for _ in 0..ROUNDS {
            bell.state.store(POLLED, Ordering::SeqCst);
            let polled = self.inner.as_mut().poll(within);
            if polled.is_pending() && bell.state.load(Ordering::SeqCst) == RUNG {
                continue;
            }
            (self.at_rest)(within);
            if polled.is_ready()
                || bell.state.compare_exchange(POLLED, STILL, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                return polled;
            }
        }
        (self.at_rest)(within);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn parts_wake_each_other_without_the_task() {
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let (answer, mut answered) = tokio::sync::mpsc::unbounded_channel();
        let one = async move {
            for n in 0..5 {
                ask.send(n).unwrap();
                assert_eq!(answered.recv().await, Some(n));
            }
        };
        let other = async move {
            while let Some(n) = asked.recv().await {
                answer.send(n).unwrap();
            }
        };
        let mut both = quiet(async { tokio::join!(one, other) });
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        assert!(Pin::new(&mut both).poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_wake_up_from_outside_arrives_and_an_endless_one_is_handed_back() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut waiting = quiet(told);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut waiting).poll(&mut context).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        tell.send(7).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut waiting).poll(&mut context), Poll::Ready(Ok(7)));
        let mut endless = quiet(std::future::poll_fn(|context: &mut Context<'_>| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        for times in 2..5 {
            assert!(Pin::new(&mut endless).poll(&mut context).is_pending());
            assert_eq!(count.0.load(Ordering::SeqCst), times);
        }
    }
}
