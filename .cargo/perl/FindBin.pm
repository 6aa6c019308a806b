package FindBin;
use strict;
use warnings;
use Cwd ();
use File::Basename ();
use Exporter 'import';

our @EXPORT_OK = qw($Bin $Script $RealBin $RealScript);
our $Script = File::Basename::basename($0);
our $Bin = Cwd::abs_path(File::Basename::dirname($0));
our ($RealBin, $RealScript) = ($Bin, $Script);

1;
