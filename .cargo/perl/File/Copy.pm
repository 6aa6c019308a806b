package File::Copy;
use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(copy);

# Names of files or open handles.
sub copy {
    my ($from, $to) = @_;
    my $in = handle($from, '<:raw') or return 0;
    my $out = handle($to, '>:raw') or return 0;
    local ($/, $\, $,) = \65536;
    while (defined(my $part = <$in>)) { print {$out} $part or return 0 }
    return is_open($to) || close($out);
}

sub is_open { my ($file) = @_; return ref $file || ref \$file eq 'GLOB' }

sub handle {
    my ($file, $mode) = @_;
    return $file if is_open($file);
    open(my $opened, $mode, $file) or return;
    return $opened;
}

1;
