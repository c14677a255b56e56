//! Tables as FlatBuffers (<https://flatbuffers.dev/internals/>), each in a buffer of its own with its size before it.
//!
//! Written front to back, which the format allows as well as the usual back to front: what a table refers to stands behind it.
//! Invariant: every number stands at a multiple of its size, counted from the buffer's size field on. Who reads doubles without
//! copying them needs that.

/// A table's fields with their numbers in the schema. Those that are not there have the schema's default.
pub type Table<'a> = Vec<(u16, Field<'a>)>;

/// The value of a field.
pub enum Field<'a> {
    /// `bool`, `ubyte` and enumerations of it.
    Byte(u8),
    Short(u16),
    Int(i32),
    Text(&'a str),
    Bytes(&'a [u8]),
    Ints(Vec<u32>),
    Doubles(Vec<f64>),
    Table(Table<'a>),
    Tables(Vec<Table<'a>>),
}

impl Field<'_> {
    /// Its bytes in the table itself.
    fn size(&self) -> usize {
        match self {
            Field::Byte(_) => 1,
            Field::Short(_) => 2,
            _ => 4,
        }
    }
}

/// Appends the buffer whose root is `root`; its length is a multiple of 8. A buffer ends before 2 GiB: the caller sees to it.
pub fn write(out: &mut Vec<u8>, root: &Table<'_>) {
    let mut buffer = Buffer { start: out.len(), out };
    buffer.int(0);
    let reference = buffer.int(0);
    let root = buffer.table(root);
    buffer.refer(reference, root);
    buffer.pad(8, 0);
    let (start, end) = (buffer.start, out.len());
    out[start..start + 4].copy_from_slice(&((end - start - 4) as u32).to_le_bytes());
}

struct Buffer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl Buffer<'_> {
    /// Zeros until what comes after the next `ahead` bytes stands at a multiple of `size`.
    fn pad(&mut self, size: usize, ahead: usize) {
        while !(self.out.len() - self.start + ahead).is_multiple_of(size) {
            self.out.push(0);
        }
    }

    /// Appends four bytes and says where they are.
    fn int(&mut self, n: u32) -> usize {
        self.out.extend_from_slice(&n.to_le_bytes());
        self.out.len() - 4
    }

    /// Makes the four bytes at `place` lead to what stands at `target`.
    fn refer(&mut self, place: usize, target: usize) {
        self.out[place..place + 4].copy_from_slice(&((target - place) as u32).to_le_bytes());
    }

    fn short(&mut self, place: usize, n: usize) {
        self.out[place..place + 2].copy_from_slice(&(n as u16).to_le_bytes());
    }

    /// The list of where the fields are, the fields, widest first, then what they refer to.
    fn table(&mut self, fields: &Table<'_>) -> usize {
        let slots = fields.iter().map(|(slot, _)| usize::from(*slot) + 1).max().unwrap_or(0);
        let list_size = 4 + 2 * slots;
        self.pad(4, list_size);
        let list = self.out.len();
        self.out.resize(list + list_size, 0);
        let table = self.int(list_size as u32);
        let mut references = Vec::new();
        for size in [4, 2, 1] {
            for (slot, field) in fields.iter().filter(|(_, field)| field.size() == size) {
                self.short(list + 4 + 2 * usize::from(*slot), self.out.len() - table);
                match field {
                    Field::Byte(n) => self.out.push(*n),
                    Field::Short(n) => self.out.extend_from_slice(&n.to_le_bytes()),
                    Field::Int(n) => self.out.extend_from_slice(&n.to_le_bytes()),
                    _ => references.push((self.int(0), field)),
                }
            }
        }
        self.short(list, list_size);
        self.short(list + 2, self.out.len() - table);
        for (place, field) in references {
            let target = self.referred(field);
            self.refer(place, target);
        }
        table
    }

    /// Appends what stands outside of its table.
    fn referred(&mut self, field: &Field<'_>) -> usize {
        match field {
            Field::Table(table) => return self.table(table),
            Field::Doubles(_) => self.pad(8, 4),
            _ => self.pad(4, 0),
        }
        let at = self.out.len();
        match field {
            Field::Text(text) => {
                self.int(text.len() as u32);
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(0);
            }
            Field::Bytes(bytes) => {
                self.int(bytes.len() as u32);
                self.out.extend_from_slice(bytes);
            }
            Field::Ints(ints) => {
                self.int(ints.len() as u32);
                ints.iter().for_each(|n| self.out.extend_from_slice(&n.to_le_bytes()));
            }
            Field::Doubles(doubles) => {
                self.int(doubles.len() as u32);
                doubles.iter().for_each(|n| self.out.extend_from_slice(&n.to_le_bytes()));
            }
            Field::Tables(tables) => {
                self.int(tables.len() as u32);
                let places: Vec<usize> = tables.iter().map(|_| self.int(0)).collect();
                for (place, table) in places.into_iter().zip(tables) {
                    let target = self.table(table);
                    self.refer(place, target);
                }
            }
            Field::Byte(_) | Field::Short(_) | Field::Int(_) | Field::Table(_) => {}
        }
        at
    }
}

#[cfg(test)]
pub mod tests {
    //! A reader that checks what it reads, for the tests of formats made of these buffers.

    use super::*;

    /// A table of a buffer: all its bytes from the size on, and its place.
    #[derive(Clone, Copy)]
    pub struct Read<'a>(&'a [u8], usize);

    fn int(bytes: &[u8], at: usize) -> usize {
        assert_eq!(at % 4, 0, "an integer stands at {at}");
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    fn short(bytes: &[u8], at: usize) -> usize {
        usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
    }

    /// Takes the first buffer off `bytes`.
    pub fn root<'a>(bytes: &mut &'a [u8]) -> Read<'a> {
        let (buffer, rest) = bytes.split_at(int(bytes, 0) + 4);
        *bytes = rest;
        Read(buffer, 4 + int(buffer, 4))
    }

    impl<'a> Read<'a> {
        fn field(self, slot: usize) -> Option<usize> {
            let list = self.1 - int(self.0, self.1);
            let offset = (4 + 2 * slot < short(self.0, list)).then(|| short(self.0, list + 4 + 2 * slot))?;
            assert!(offset < short(self.0, list + 2));
            (offset > 0).then_some(self.1 + offset)
        }

        fn list(self, slot: usize) -> Option<(usize, usize)> {
            let place = self.field(slot)?;
            let at = place + int(self.0, place);
            Some((int(self.0, at), at + 4))
        }

        pub fn byte(self, slot: usize) -> Option<u8> {
            self.field(slot).map(|at| self.0[at])
        }

        pub fn int(self, slot: usize) -> Option<usize> {
            self.field(slot).map(|at| int(self.0, at))
        }

        pub fn short(self, slot: usize) -> Option<usize> {
            self.field(slot).map(|at| short(self.0, at))
        }

        pub fn bytes(self, slot: usize) -> Option<&'a [u8]> {
            self.list(slot).map(|(n, at)| &self.0[at..at + n])
        }

        pub fn text(self, slot: usize) -> Option<&'a str> {
            let (n, at) = self.list(slot)?;
            assert_eq!(self.0[at + n], 0);
            self.bytes(slot).map(|b| std::str::from_utf8(b).unwrap())
        }

        pub fn ints(self, slot: usize) -> Vec<usize> {
            self.list(slot).map_or(Vec::new(), |(n, at)| (0..n).map(|i| int(self.0, at + 4 * i)).collect())
        }

        pub fn doubles(self, slot: usize) -> Vec<f64> {
            let Some((n, at)) = self.list(slot) else { return Vec::new() };
            assert_eq!(at % 8, 0, "doubles stand at {at}");
            self.0[at..at + 8 * n].chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect()
        }

        pub fn table(self, slot: usize) -> Option<Read<'a>> {
            self.field(slot).map(|place| Read(self.0, place + int(self.0, place)))
        }

        pub fn tables(self, slot: usize) -> Vec<Read<'a>> {
            let Some((n, at)) = self.list(slot) else { return Vec::new() };
            (0..n).map(|i| at + 4 * i).map(|place| Read(self.0, place + int(self.0, place))).collect()
        }
    }

    #[test]
    fn tables_are_read_back() {
        let mut out = b"before".to_vec();
        for text in ["", "a", "ab", "abc", "abcd"] {
            let inner = vec![(1, Field::Doubles(vec![1.5, -2.0]))];
            let many = vec![vec![], vec![(0, Field::Byte(7))]];
            write(
                &mut out,
                &vec![
                    (0, Field::Text(text)),
                    (1, Field::Byte(1)),
                    (3, Field::Short(70)),
                    (4, Field::Int(1 << 30)),
                    (5, Field::Bytes(text.as_bytes())),
                    (6, Field::Ints(vec![3, 5])),
                    (7, Field::Table(inner)),
                    (8, Field::Tables(many)),
                ],
            );
        }
        let mut rest = &out[6..];
        for text in ["", "a", "ab", "abc", "abcd"] {
            assert_eq!(rest.len() % 8, 0);
            let read = root(&mut rest);
            assert_eq!((read.text(0), read.byte(1), read.byte(2)), (Some(text), Some(1), None));
            assert_eq!((read.short(3), read.int(4), read.bytes(5)), (Some(70), Some(1 << 30), Some(text.as_bytes())));
            assert_eq!((read.ints(6), read.table(7).unwrap().doubles(1)), (vec![3, 5], vec![1.5, -2.0]));
            assert_eq!(read.tables(8).iter().map(|t| t.byte(0)).collect::<Vec<_>>(), [None, Some(7)]);
            assert!(read.field(9).is_none());
        }
        assert!(rest.is_empty());
    }
}
