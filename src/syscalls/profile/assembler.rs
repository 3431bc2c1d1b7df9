//! Writes programs for the kernel's BPF machine, as seccomp(2) takes them (linux/filter.h).

/// A program that is written from its last instruction to its first one: jumps lead forward only,
/// so their destinations are there already.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    backwards: Vec<[u8; 8]>,
}

/// An instruction, by the number of instructions behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// What a jump tests about the loaded word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    Equals = 0x15,
    IsAtLeast = 0x35,
    HasAnyOf = 0x45,
}

// linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

impl Assembler {
    /// Returns `action`, a SECCOMP_RET_*.
    pub(super) fn answer(&mut self, action: u32) -> Place {
        self.add(RETURN, [0, 0], action)
    }

    /// Loads the word at `offset` of struct seccomp_data.
    pub(super) fn load(&mut self, offset: u32, then: Place) -> Place {
        self.go_to(then);
        self.add(LOAD_WORD, [0, 0], offset)
    }

    /// Clears the bits of the loaded word that are not in `mask`.
    pub(super) fn mask(&mut self, mask: u32, then: Place) -> Place {
        self.go_to(then);
        self.add(AND, [0, 0], mask)
    }

    /// Compares the loaded word with `operand`.
    pub(super) fn test(&mut self, test: Test, operand: u32, yes: Place, no: Place) -> Place {
        let places = [self.within_reach(yes), self.within_reach(no)];
        // `within_reach` leaves no longer distance.
        let distances = places.map(|place| u8::try_from(self.distance(place)).unwrap_or(u8::MAX));
        self.add(test as u16, distances, operand)
    }

    /// Finds the place for the loaded word: that of the last range which begins at or below it.
    /// The first range begins at 0.
    pub(super) fn search(&mut self, ranges: &[(u32, Place)]) -> Place {
        if let [(_, place)] = ranges {
            return *place;
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let yes = self.search(upper);
        let no = self.search(lower);
        self.test(Test::IsAtLeast, upper[0].0, yes, no)
    }

    /// The instructions, as an array of `struct sock_filter`.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.backwards.reverse();
        self.backwards.concat()
    }

    fn add(&mut self, code: u16, [yes, no]: [u8; 2], operand: u32) -> Place {
        let [low, high] = code.to_ne_bytes();
        let [a, b, c, d] = operand.to_ne_bytes();
        self.backwards.push([low, high, yes, no, a, b, c, d]);
        Place(self.backwards.len() - 1)
    }

    /// The number of instructions between the next one and `place`.
    fn distance(&self, place: Place) -> usize {
        self.backwards.len() - 1 - place.0
    }

    /// Lets the next instruction be followed by the one at `place`.
    fn go_to(&mut self, place: Place) {
        if self.distance(place) > 0 {
            self.jump(place);
        }
    }

    fn jump(&mut self, place: Place) -> Place {
        // The kernel takes 4096 instructions at most.
        let distance = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
        self.add(JUMP, [0, 0], distance)
    }

    /// A place that leads to `place`, and that a test can jump to: over 255 instructions at most.
    fn within_reach(&mut self, place: Place) -> Place {
        // One less, for a jump that the other destination of the test may need.
        match self.distance(place) < usize::from(u8::MAX) {
            true => place,
            false => self.jump(place),
        }
    }
}
