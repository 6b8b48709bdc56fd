//! The times of a stream's lines in, which line is so much older than the newest one that Loki would refuse it out.
//!
//! Loki judges by the newest line that it was ever sent for a stream, and may hide the refusal. What was sent must
//! therefore be known after a crash too: the journal keeps a bound that the newest line stays below. It is rounded up,
//! so that it is written once in a tenth of the window, and it alone decides: before and after a crash the same.

/// How far apart the lines of one stream may lie, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// What a bound is rounded up to.
    step: i64,
    /// How far below a bound lines may lie.
    reach: i64,
}

impl Window {
    /// For a Loki that takes lines so many milliseconds older than a stream's newest one.
    pub(super) fn new(milliseconds: u64) -> Self {
        let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX / 16);
        Self {
            step: (seconds / 10).max(1),
            // The clocks of this agent and of Loki are not asked, so the rest is for rounding only.
            reach: (seconds / 10).max(1) * 8,
        }
    }
}

/// What is known of a stream's newest line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Every line put in is older than this, in seconds since 1970.
    bound: i64,
    /// Lines older than this would be refused.
    floor: i64,
    /// The bound that the journal has.
    journaled: i64,
}

impl Order {
    /// Of a stream without lines.
    pub(super) const NEW: Self = Self {
        bound: i64::MIN,
        floor: i64::MIN,
        journaled: i64::MIN,
    };
    /// Of a stream whose lines lie within the window whatever their order is.
    pub(super) const FREE: Self = Self {
        bound: i64::MAX,
        floor: i64::MIN,
        journaled: i64::MAX,
    };

    /// As the journal has it.
    pub(super) fn restored(bound: i64, window: Window) -> Self {
        Self {
            bound,
            floor: bound.saturating_sub(window.reach),
            journaled: bound,
        }
    }

    /// Whether there is something to be remembered of the stream when nobody has it open.
    pub(super) fn is_known(&self) -> bool {
        self.bound != i64::MIN && self.bound != i64::MAX
    }

    /// Whether a line would be refused.
    pub(super) fn is_behind(&self, seconds: i64) -> bool {
        seconds < self.floor
    }

    /// Up to which time lines that come after one that is behind are to be taken for late as well: where it is clear that
    /// they are not.
    pub(super) fn late_until(&self, window: Window) -> i64 {
        self.floor.saturating_add(window.step)
    }

    /// What a line that is newer than all others makes of it; nothing for another line.
    pub(super) fn raised(&self, seconds: i64, window: Window) -> Option<Self> {
        if seconds < self.bound {
            return None;
        }
        let bound = seconds
            .div_euclid(window.step)
            .saturating_add(1)
            .saturating_mul(window.step);
        Some(Self {
            bound,
            floor: bound.saturating_sub(window.reach),
            journaled: self.journaled,
        })
    }

    /// The window is another one.
    pub(super) fn set(&mut self, window: Window) {
        if self.is_known() {
            self.floor = self.bound.saturating_sub(window.reach);
        }
    }

    /// Every line put in is older than this.
    pub(super) fn bound(&self) -> i64 {
        self.bound
    }

    /// Whether the journal has to be told of a bound before lines below it are sent; it is, from now on.
    pub(super) fn must_be_journaled(&mut self, bound: i64) -> bool {
        let must = bound > self.journaled;
        self.journaled = self.journaled.max(bound);
        must
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_older_than_four_fifths_of_the_window_are_behind() {
        let window = Window::new(3_600_000);
        let order = Order::NEW.raised(10_000, window).unwrap();
        assert_eq!(order.bound(), 10_080);
        assert!(order.is_behind(10_080 - 2881) && !order.is_behind(10_080 - 2880));
        assert_eq!(order.late_until(window), 10_080 - 2520);
        assert!(order.raised(10_079, window).is_none());
        assert!(!Order::FREE.is_behind(i64::MIN) && Order::FREE.raised(i64::MAX - 1, window).is_none());
        assert!(!Order::NEW.is_known() && !Order::FREE.is_known() && order.is_known());
    }

    proptest! {
        /// Whatever comes in whatever order: what is not behind, Loki takes, and a crash changes no decision.
        #[test]
        fn what_is_not_behind_lies_within_the_window(
            seconds in proptest::collection::vec(0_i64..20_000, 1..60), window in 10_u64..4_000,
        ) {
            let rules = Window::new(window * 1000);
            let window = i64::try_from(window).unwrap();
            let (mut order, mut newest) = (Order::NEW, i64::MIN);
            for second in seconds {
                let again = if order.is_known() { Order::restored(order.bound(), rules) } else { order };
                prop_assert_eq!(again.is_behind(second), order.is_behind(second));
                if order.is_behind(second) {
                    prop_assert!(second < newest);
                    continue;
                }
                prop_assert!(newest == i64::MIN || second >= newest - window);
                newest = newest.max(second);
                order = order.raised(second, rules).unwrap_or(order);
                prop_assert!(order.bound() > newest && !order.is_behind(second));
            }
        }
    }
}
