//! What must be stored of the generations of a model.

use std::collections::HashMap;

/// What a file held from its creation, or its truncation, to the next truncation or its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation {
    pub bytes: Vec<u8>,
    /// Nothing completes its last line any more.
    pub closed: bool,
}

impl Generation {
    /// The complete lines, as they are delivered.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let whole = self.bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        whole.map(|line| String::from_utf8_lossy(&line[..line.len() - 1]).into_owned())
    }

    /// What follows the last line feed.
    pub(super) fn rest(&self) -> Option<String> {
        let rest = self.bytes.rsplit(|byte| *byte == b'\n').next().filter(|rest| !rest.is_empty())?;
        Some(String::from_utf8_lossy(rest).into_owned())
    }
}

/// Says what is wrong with `stored`, which is in the order of the sequence numbers: of each generation every complete
/// line must be in it, in order and once; after them, if the generation is closed, its rest may be, depending on whether
/// anybody could still see that it is closed; and nothing else. No two lines of a model are the same.
pub(super) fn judge(generations: &[Generation], stored: &[String]) -> Result<(), String> {
    let mut places: HashMap<String, (usize, usize)> = HashMap::new();
    let mut missing: Vec<Vec<bool>> = Vec::new();
    for (number, generation) in generations.iter().enumerate() {
        let lines: Vec<String> = generation.lines().collect();
        missing.push(vec![true; lines.len()]);
        let rest = generation.rest().filter(|_| generation.closed);
        for (at, line) in lines.into_iter().chain(rest).enumerate() {
            assert!(places.insert(line, (number, at)).is_none(), "the model has a line twice");
        }
    }
    let mut next: Vec<usize> = vec![0; generations.len()];
    let mut wrong = Vec::new();
    for line in stored {
        let shown = line.get(..60).unwrap_or(line);
        match places.get(line) {
            None => wrong.push(format!("nobody wrote {shown:?}")),
            Some((number, at)) => {
                if *at < next[*number] {
                    wrong
                        .push(format!("line {at} of generation {number} is there again, or late: {shown:?}"));
                }
                next[*number] = next[*number].max(at + 1);
                if let Some(missing) = missing[*number].get_mut(*at) {
                    *missing = false;
                }
            }
        }
    }
    for (number, missing) in missing.iter().enumerate() {
        let lost: Vec<usize> = (0..missing.len()).filter(|at| missing[*at]).collect();
        if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
            wrong.push(format!("{} lines of generation {number} are missing, {first} to {last}", lost.len()));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into_iter().take(8).collect::<Vec<_>>().join("\n")) }
}

/// A check that cannot fail is a defect: each kind of fault is put in and must be found.
#[test]
fn the_judge_finds_what_it_is_for() {
    let closed = Generation { bytes: b"a1\na2\na3".to_vec(), closed: true };
    let open = Generation { bytes: b"b1\nb2\n\xff3".to_vec(), closed: false };
    let generations = [closed, open];
    let judged = |stored: &[&str]| {
        let stored: Vec<String> = stored.iter().map(|line| (*line).to_owned()).collect();
        judge(&generations, &stored).err().unwrap_or_default()
    };
    for good in [&["a1", "a2", "b1", "b2"][..], &["b1", "a1", "b2", "a2", "a3"]] {
        assert_eq!(judged(good), "");
    }
    assert!(judged(&["a1", "b1", "b2"]).contains("1 lines of generation 0 are missing, 1 to 1"));
    assert!(judged(&["a1", "a2", "b1", "b2", "a1"]).contains("line 0 of generation 0 is there again"));
    assert!(judged(&["a2", "a1", "b1", "b2"]).contains("late"));
    assert!(judged(&["a1", "a3", "a2", "b1", "b2"]).contains("late"));
    assert!(judged(&["a1", "a2", "a3", "a3", "b1", "b2"]).contains("again"));
    assert!(judged(&["a1", "a2", "b1", "b2", "\u{fffd}3"]).contains("nobody wrote"));
    assert!(judged(&["a1", "a2", "b1", "b2", "\0\0"]).contains("nobody wrote"));
}
