//! A spin lock for what several processors share.

#![allow(unsafe_code, reason = "gives one processor at a time a mutable reference")]

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that one processor at a time may use. Holders must be brief and must not halt.
pub struct Lock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the flag lets one processor at a time through.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to use the value, until it is dropped.
pub struct Held<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    /// A lock that is free.
    pub const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits until the value is free.
    pub fn hold(&self) -> Held<'_, T> {
        while self.held.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        Held(self)
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this processor set the flag.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this processor set the flag, and `self` is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
    }
}
