//! What the stack traces of some languages look like: for each a table of what may come after what.
//!
//! A table is read like this: after a line that left the trace in the state `from`, a line that passes `test` is a part of
//! it, and leaves it in the state `to`. The first rule that fits decides. [`State::Idle`] is that before the first line.
//! What no rule fits is not a part of the trace. The tables are made so that a line is joined only where the languages
//! print it; a line of the program's own that looks the same in the same place cannot be told from it.

use crate::config::MultilinePreset;

/// How far into a stack trace a line is. Each language uses the states in its own sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before it.
    Idle,
    /// After the line that says what happened, or, for Java, after any line.
    Head,
    /// Among the calls.
    Calls,
    /// Among the traces of a group, which are drawn as a tree.
    Tree,
    /// After the last line of one trace, of which there may be another.
    Done,
    /// After a blank line behind one trace.
    Gap,
    /// After the line that says how the next trace comes of it.
    Chain,
    /// After a blank line behind that.
    ChainGap,
    /// After the very last line.
    End,
}

#[derive(Debug)]
struct Step {
    from: State,
    test: fn(&[u8]) -> bool,
    to: State,
}

/// The table of a language.
#[derive(Debug)]
pub(super) struct Preset(&'static [Step]);

impl Preset {
    pub(super) const fn of(preset: MultilinePreset) -> &'static Self {
        match preset {
            MultilinePreset::Java => &JAVA,
            MultilinePreset::Python => &PYTHON,
            MultilinePreset::Go => &GO,
            MultilinePreset::Ruby => &RUBY,
        }
    }

    /// The state after `line`; `None` if it is not a part of the trace.
    pub(super) fn next(&self, from: State, line: &[u8]) -> Option<State> {
        self.0.iter().find(|step| step.from == from && (step.test)(line)).map(|step| step.to)
    }
}

const fn step(from: State, test: fn(&[u8]) -> bool, to: State) -> Step {
    Step { from, test, to }
}

/// ```text
/// 10:30:00 ERROR request failed: java.lang.IllegalStateException: no session
///     at app.Sessions.find(Sessions.java:17)
///     Suppressed: java.io.IOException: close
///         at app.Sessions.close(Sessions.java:40)
/// Caused by: java.io.IOException: timeout
///     at app.Store.read(Store.java:88)
///     ... 12 more
/// ```
/// Any line may be the head of a trace: the one directly before its first call is. A message on the line before that is an
/// event of its own.
static JAVA: Preset =
    Preset(&[step(State::Idle, is_not_blank, State::Head), step(State::Head, is_java_call, State::Head)]);

/// ```text
/// Traceback (most recent call last):
///   File "app.py", line 3, in <module>
///     main()
/// KeyError: 'a'
///
/// During handling of the above exception, another exception occurred:
///
/// Traceback (most recent call last):
///   File "app.py", line 5, in <module>
///     recover()
/// app.errors.RecoveryError: no
/// ```
/// Or, of several exceptions at once, with every line inside the tree:
/// ```text
///   + Exception Group Traceback (most recent call last):
///   |   File "app.py", line 3, in <module>
///   | ExceptionGroup: both (1 sub-exception)
///   +-+---------------- 1 ----------------
///     | ValueError: first
///     +------------------------------------
/// ```
static PYTHON: Preset = Preset(&[
    step(State::Idle, is_python_group, State::Tree),
    step(State::Idle, is_python_head, State::Calls),
    step(State::Calls, is_indented, State::Calls),
    step(State::Calls, is_python_error, State::Done),
    step(State::Tree, is_python_tree, State::Tree),
    step(State::Tree, is_blank, State::Gap),
    step(State::Done, is_blank, State::Gap),
    step(State::Gap, is_python_chain, State::Chain),
    step(State::Chain, is_blank, State::ChainGap),
    step(State::ChainGap, is_python_group, State::Tree),
    step(State::ChainGap, is_python_head, State::Calls),
]);

/// ```text
/// panic: assignment to entry in nil map [recovered]
///     panic: again
/// [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48]
///
/// goroutine 1 [running]:
/// main.(*Server).serve(0xc000010000, {0x4b, 0x3})
///     /src/app/main.go:17 +0x1d
/// created by main.main in goroutine 1
///     /src/app/main.go:9 +0x25
///
/// goroutine 7 [chan receive, 2 minutes]:
/// main.wait(...)
///     /src/app/wait.go:4
/// exit status 2
/// ```
static GO: Preset = Preset(&[
    step(State::Idle, is_go_head, State::Head),
    step(State::Idle, is_goroutine, State::Calls),
    step(State::Head, is_blank, State::Gap),
    step(State::Head, is_go_detail, State::Head),
    step(State::Head, is_goroutine, State::Calls),
    step(State::Head, is_exit_status, State::End),
    step(State::Gap, is_goroutine, State::Calls),
    step(State::Gap, is_exit_status, State::End),
    step(State::Calls, is_blank, State::Gap),
    step(State::Calls, is_go_call, State::Calls),
    step(State::Calls, is_exit_status, State::End),
]);

/// ```text
/// app.rb:3:in 'Sessions#find': no session (RuntimeError)
///     from app.rb:9:in 'block in <main>'
///      ... 12 levels...
///     from app.rb:12:in '<main>'
/// ```
static RUBY: Preset = Preset(&[
    step(State::Idle, is_ruby_head, State::Calls),
    step(State::Idle, is_ruby_call, State::Calls),
    step(State::Calls, is_ruby_call, State::Calls),
]);

fn is_blank(line: &[u8]) -> bool {
    line.is_empty()
}

fn is_not_blank(line: &[u8]) -> bool {
    !line.is_empty()
}

fn is_indented(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t')) && !line.trim_ascii().is_empty()
}

/// Whether `line` is `before`, digits, and something that begins with `after`.
fn has_number_between(line: &[u8], before: &[u8], after: &[u8]) -> bool {
    line.strip_prefix(before).is_some_and(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && rest.get(digits..).is_some_and(|rest| rest.starts_with(after))
    })
}

fn is_java_call(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    // Only what heads a trace of its own may stand at the margin.
    if [&b"Caused by: "[..], b"Suppressed: ", b"Wrapped by: "].iter().any(|head| text.starts_with(head)) {
        return true;
    }
    is_indented(line)
        && (text.starts_with(b"at ")
            || text.starts_with(b"[CIRCULAR REFERENCE")
            || has_number_between(text, b"... ", b" more")
            || has_number_between(text, b"... ", b" common frames omitted"))
}

fn is_python_group(line: &[u8]) -> bool {
    is_python_tree(line) && line.ends_with(b"Exception Group Traceback (most recent call last):")
}

fn is_python_tree(line: &[u8]) -> bool {
    is_indented(line) && matches!(line.trim_ascii_start().first(), Some(b'|' | b'+'))
}

/// A logger may have put its prefix before it.
fn is_python_head(line: &[u8]) -> bool {
    line.ends_with(b"Traceback (most recent call last):")
}

/// The name of an exception, alone or with a colon and a message behind it.
fn is_python_error(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_of_name = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'<' | b'>') || !byte.is_ascii()
    };
    name.first().is_some_and(|first| !first.is_ascii_digit()) && name.iter().all(is_of_name)
}

fn is_python_chain(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception, another exception occurred:")
        || line.starts_with(b"The above exception was the direct cause of the following exception:")
}

fn is_go_head(line: &[u8]) -> bool {
    line.starts_with(b"panic: ")
        || line.starts_with(b"fatal error: ")
        || memchr::memmem::find(line, b"http: panic serving ").is_some()
}

/// What may stand between what happened and the blank line: panics in deferred calls, and the signal.
fn is_go_detail(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    text.starts_with(b"[signal ") || text.starts_with(b"panic: ") || text.starts_with(b"[recovered")
}

fn is_goroutine(line: &[u8]) -> bool {
    line.ends_with(b":")
        && (has_number_between(line, b"goroutine ", b" ") || line.starts_with(b"runtime stack:"))
}

/// A function with its arguments, where it was created, or the place of either.
fn is_go_call(line: &[u8]) -> bool {
    if line.starts_with(b"\t") || line.starts_with(b"created by ") || line.starts_with(b"...") {
        return true;
    }
    let Some(at) = memchr::memchr(b'(', line) else { return false };
    let name = line.get(..at).unwrap_or_default();
    line.ends_with(b")") && !name.contains(&b' ') && (name.contains(&b'.') || name == b"panic")
}

fn is_exit_status(line: &[u8]) -> bool {
    has_number_between(line, b"exit status ", b"")
}

/// `FILE:LINE:in 'METHOD': MESSAGE (CLASS)`, where the message may go on in further lines.
fn is_ruby_head(line: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(line, b":in ") else { return false };
    let (place, rest) = line.split_at_checked(at).unwrap_or((line, b""));
    let digits = place.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let file = place.get(..place.len() - digits).unwrap_or_default();
    let is_quoted = matches!(rest.get(b":in ".len()), Some(b'\'' | b'`'));
    digits > 0 && file.len() > 1 && file.ends_with(b":") && !is_indented(line) && is_quoted
}

fn is_ruby_call(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    is_indented(line) && (text.starts_with(b"from ") || has_number_between(text, b"... ", b" levels..."))
}
