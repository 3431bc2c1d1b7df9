//! Outputs that must be the same.

/// Compares two outputs and shows where they part.
#[track_caller]
pub(crate) fn assert_same_lines(oracle: &[u8], ours: &[u8]) {
    const SHOWN: usize = 20;
    let lines = |bytes: &[u8]| -> Vec<String> {
        bytes
            .split(|byte| *byte == b'\n')
            .map(|line| line.escape_ascii().to_string())
            .collect()
    };
    let (oracle, ours) = (lines(oracle), lines(ours));
    assert!(oracle.len() > 1, "the oracle printed nothing");
    let Some(first) = (0..oracle.len().max(ours.len())).find(|n| oracle.get(*n) != ours.get(*n))
    else {
        return;
    };
    let differing = oracle.iter().zip(&ours).filter(|(a, b)| a != b).count();
    let mut report = String::new();
    for line in &oracle[first.saturating_sub(3)..first.min(oracle.len())] {
        report += &format!("        {line}\n");
    }
    for n in first..first + SHOWN {
        match (oracle.get(n), ours.get(n)) {
            (Some(a), Some(b)) if a == b => report += &format!("        {a}\n"),
            (a, b) => {
                for (who, line) in [("oracle", a), ("ours  ", b)] {
                    report += &format!("{who}  {}\n", line.map_or("(end)", String::as_str));
                }
            }
        }
    }
    panic!(
        "{differing} lines differ ({} and {} in all), the first is line {}:\n{report}",
        oracle.len(),
        ours.len(),
        first + 1
    );
}
