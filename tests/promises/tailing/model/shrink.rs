//! Makes a sequence that fails shorter.

/// The most sequences that are tried.
const ATTEMPTS_MAX: usize = 80;

/// Takes parts out of `items`, which fail, for as long as they still do: halves first, then ever smaller parts, down to
/// single ones. What it returns fails, and unless the attempts were used up no single one of it can be left out.
pub(super) fn shrink<T: Clone>(mut items: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut attempts = 0;
    let mut part = items.len().div_ceil(2).max(1);
    loop {
        let mut is_shorter = false;
        let mut at = 0;
        while at < items.len() && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let mut without = items.clone();
            without.drain(at..(at + part).min(items.len()));
            if fails(&without) {
                items = without;
                is_shorter = true;
            } else {
                at += part;
            }
        }
        if attempts >= ATTEMPTS_MAX || (part == 1 && !is_shorter) {
            return items;
        }
        // Once more with single ones, as what was needed for one that is gone can go as well.
        part = part.div_ceil(2);
    }
}

#[test]
fn what_is_not_needed_is_left_out() {
    let mut attempts = 0;
    let minimal = shrink((0..40).collect(), |items: &[u32]| {
        attempts += 1;
        items.contains(&7) && items.contains(&23)
    });
    assert_eq!(minimal, [7, 23]);
    assert!(attempts <= ATTEMPTS_MAX);
}

#[test]
fn what_fails_only_as_a_whole_stays_whole() {
    let whole: Vec<u32> = (0..60).collect();
    assert_eq!(shrink(whole.clone(), |items| items.len() == 60), whole);
    assert!(shrink(Vec::<u32>::new(), |_| true).is_empty());
}
